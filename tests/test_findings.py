"""The findings reader: its grammar on a tiny lexicon, and what it makes of complaints as patients send them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.case import ABSENT, PRESENT, Case, Vitals
from inference.findings import FindingsReader
from training.catalogue import Catalogue, compile_lexicon, load_catalogue

Row = tuple[str, str, str]
Outcome = tuple[set[str], set[str]]

LEXICON: dict[str, Any] = {
    "phrases": [
        [code, "", polarity, script, text]
        for code, polarity, script, texts in [
            ("fever", "present", "en", ["fever"]),
            ("fever", "present", "roman", ["bukhar"]),
            ("fever", "present", "ur", ["بخار"]),
            ("fever", "absent", "en", ["afebrile", "no fever"]),
            ("fever", "absent", "roman", ["bukhar nahi"]),
            ("cough", "present", "en", ["cough"]),
            ("cough", "present", "roman", ["khansi"]),
            ("cough", "present", "ur", ["کھانسی"]),
            ("pain", "present", "en", ["pain"]),
            ("chest_pain", "present", "en", ["chest pain"]),
            ("chest_pain", "present", "roman", ["seene mein dard"]),
            ("head_pain", "present", "en", ["headache"]),
            ("head_pain", "present", "roman", ["sar dard"]),
            ("face_swelling", "present", "en", ["face swelling"]),
            ("leg_swelling", "present", "en", ["leg swelling"]),
            ("rigors", "present", "en", ["chills", "fever with chills"]),
            ("breathless", "absent", "roman", ["saans theek hai"]),
            ("no_air", "present", "roman", ["saans nahi aa raha"]),
            ("retention", "present", "roman", ["peshab nahi aa raha"]),
            ("sugar", "present", "en", ["diabetes"]),
            ("sugar", "present", "roman", ["sugar hai"]),
            ("vomiting", "present", "roman", ["qay"]),
        ]
        for text in texts
    ],
    "duration": [
        {"of": "cough", "over_days": 14, "finding": "long_cough"},
        {"of": "cough", "under_days": 7, "finding": "cough_time", "value": "days"},
    ],
    "severe": [{"of": "head_pain", "finding": "severe_head_pain"}],
    "measured": [{"finding": "fever", "vital": "temperature_celsius", "at_least": 38.0, "absent_below": 37.5}],
    "history": [{"finding": "sugar"}],
}
READER = FindingsReader(LEXICON, {"chest_pain": "pain", "long_cough": "cough", "severe_head_pain": "head_pain"})


def said(complaint: str) -> dict[str, str]:
    """Finding by finding what the tiny lexicon makes of a complaint; a later mention overwrites an earlier one."""
    return {finding.code: finding.value for finding in READER.read(complaint).findings}


@pytest.mark.parametrize(
    ("complaint", "present", "absent"),
    [
        ("fever", "fever", ""),
        ("no fever", "", "fever"),
        ("afebrile", "", "fever"),
        ("bukhar nahi", "", "fever"),
        ("بخار نہیں ہے", "", "fever"),
        ("fever absent", "", "fever"),
        ("fever nil", "", "fever"),
        ("fever -ve, cough +ve", "cough", "fever"),
        ("no fever or cough", "", "fever cough"),
        ("no fever, cough or headache", "", "fever cough head_pain"),
        ("denies fever, cough, headache", "", "fever cough head_pain"),
        ("no fever/cough", "", "fever cough"),
        ("no fever, cough", "cough", "fever"),
        ("no fever cough", "cough", "fever"),
        ("no fever but cough", "cough", "fever"),
        ("no fever. cough", "cough", "fever"),
        ("no fever has cough", "cough", "fever"),
        ("does not have fever", "", "fever"),
        ("no improvement in fever", "fever", ""),
        ("fever not resolved", "fever", ""),
        ("bukhar hai khansi nahi", "fever", "cough"),
        ("bukhar khansi nahi", "fever", "cough"),
        ("bukhar aur khansi nahi", "", "fever cough"),
        ("bukhar hua nahi", "", "fever"),
        ("na bukhar na khansi", "", "fever cough"),
        ("na bukhar hai na khansi", "", "fever cough"),
        ("bukhar hai na khansi bhi hai", "fever cough", ""),
        ("bukhar ke baghair khansi", "cough", "fever"),
        ("baghair bukhar ke khansi", "cough", "fever"),
        ("bukhar nahi utar raha", "fever", ""),
        ("bukhar dawa se theek nahi ho raha", "fever", ""),
        ("saanp ne kaata bukhar hai", "fever", ""),
    ],
)
def test_negation(complaint: str, present: str, absent: str) -> None:
    """Denials reach what they list and no further; a turn, a comma, a verb or an unknown word ends them."""
    expected = dict.fromkeys(present.split(), PRESENT) | dict.fromkeys(absent.split(), ABSENT)
    assert said(complaint) == expected


@pytest.mark.parametrize(
    ("complaint", "code"),
    [
        ("peshab nahi aa raha", "retention"),
        ("saans nahi aa rahi", "no_air"),
        ("saans aa nahi rahi", "no_air"),
        ("saans theek se nahi aa rahi", "no_air"),
        ("saans theek nahi", "breathless"),
    ],
)
def test_a_negation_that_states_a_finding(complaint: str, code: str) -> None:
    """What does not come, and well-being that is denied, is present, in either order of verb and negation."""
    assert said(complaint).get(code) == PRESENT


def test_the_longest_wording_wins_but_not_over_a_negation() -> None:
    """In "chest pain" is no "pain" of its own, while "fever without chills" is still fever."""
    assert said("chest pain") == {"chest_pain": PRESENT}
    assert said("fever with chills") == {"rigors": PRESENT}
    assert said("fever without chills") == {"fever": PRESENT, "rigors": ABSENT}


def test_words_of_a_wording_may_change_places_and_stand_apart() -> None:
    """Order is free within a statement, up to two foreign words between."""
    assert "chest_pain" in said("pain in the chest")
    assert "chest_pain" in said("dard bohat seene mein")
    assert "chest_pain" not in said("chest one two three pain")
    assert "chest_pain" not in said("chest. pain")


def test_a_wording_crosses_a_comma_only_when_it_uses_both_sides_up() -> None:
    """Inverted, "swelling, face" is one wording; in "leg swelling, face normal" two statements stand side by side."""
    assert said("swelling, face") == {"face_swelling": PRESENT}
    assert said("leg swelling, face normal") == {"leg_swelling": PRESENT}


def test_misspelt_words_are_mended_by_length() -> None:
    """One edit in five letters, swapped letters in four; the first letter must hold, and a filler stays itself."""
    assert said("headahce") == {"head_pain": PRESENT}
    assert said("coguh") == {"cough": PRESENT}
    assert said("gough") == {}
    assert said("qay") == {"vomiting": PRESENT}
    assert said("ki") == {}


@pytest.mark.parametrize(
    ("complaint", "days"),
    [
        ("fever x 3 days", 3),
        ("fever for two weeks", 14),
        ("fever since yesterday", 1),
        ("fever 3/7", 3),
        ("bukhar 2 hafte se", 14),
        ("do din se bukhar", 2),
        ("derh mahine se bukhar", 45),
        ("تین دن سے بخار", 3),
        ("۱۰ دن سے بخار", 10),
        ("kal se bukhar", 1),
        ("hafton se bukhar", 21),
        ("fever for a week", 7),
        ("fever 2 days, cough for 3 weeks", 2),
        ("fever 3 times a day", None),
        ("5 saal ka bacha, bukhar", None),
        ("3 year old with fever", None),
    ],
)
def test_durations(complaint: str, days: float | None) -> None:
    """Digits and words of all scripts count; an age, a pregnancy and a frequency do not."""
    [fever] = [finding for finding in READER.read(complaint).findings if finding.code == "fever"]
    assert fever.duration_days == days


def test_a_duration_and_a_strong_word_say_more() -> None:
    """Their findings are added with the span of the finding they belong to, and only in its own statement."""
    assert said("cough for 3 weeks") == {"cough": PRESENT, "long_cough": PRESENT}
    assert said("cough 2 days") == {"cough": PRESENT, "cough_time": "days"}
    assert said("severe headache") == {"head_pain": PRESENT, "severe_head_pain": PRESENT}
    assert said("sar mein bohat dard") == {"head_pain": PRESENT, "severe_head_pain": PRESENT}
    assert said("sar dard bohat hai")["severe_head_pain"] == PRESENT
    assert said("mild headache") == {"head_pain": PRESENT}
    assert said("severe cough, headache") == {"cough": PRESENT, "head_pain": PRESENT}


@pytest.mark.parametrize(
    ("complaint", "codes"),
    [
        ("father has diabetes, headache", "head_pain"),
        ("patient has fever, brother has cough", "fever"),
        ("fever, bhai ko bhi khansi hai", "fever"),
        ("my father has chest pain", "chest_pain"),
        ("my father has diabetes and fever", "sugar fever"),
        ("mother says he has fever", "fever"),
        ("brought by brother with fever", "fever"),
        ("fever, my brother has cough", "fever cough"),
        ("past history of cough, now fever", "fever"),
        ("cough 5 years ago, now fever", "fever"),
        ("cough started 5 years ago", "cough"),
        ("diabetes 5 years ago, fever", "sugar fever"),
    ],
)
def test_other_people_and_other_years(complaint: str, codes: str) -> None:
    """What is clearly a relative's or long past is left out; where the relative may be the patient it stays."""
    assert {code for code, value in said(complaint).items() if value == PRESENT} - {"long_cough"} == set(codes.split())


def test_the_form_and_measurements_come_before_the_complaint() -> None:
    """A form's answer stays, a measured value decides over silence, a mention adds parents, present beats absent."""
    case = Case(
        case_id="a",
        complaint="no cough, later cough, chest pain, fever",
        findings={"fever": ABSENT},
        vitals=Vitals(temperature_celsius=39),
    )
    merged, reading = READER.read_case(case)
    assert merged == {"fever": ABSENT, "cough": PRESENT, "chest_pain": PRESENT, "pain": PRESENT}
    assert [case.complaint[start:end] for start, end in reading.not_understood] == ["later"]


@pytest.mark.parametrize(("celsius", "value"), [(38.0, PRESENT), (37.7, None), (37.4, ABSENT), (None, None)])
def test_a_measured_fever(celsius: float | None, value: str | None) -> None:
    """At the threshold present, below the other limit absent, between them and unmeasured unknown."""
    case = Case(case_id="a", vitals=Vitals(temperature_celsius=celsius))
    assert READER.read_case(case)[0].get("fever") == value


WORDS = st.sampled_from(
    "fever no cough, nahi na bukhar hai aur chest pain severe 3 days since بخار نہیں دن . ; ago father has -ve 2/7 headahce و".split()
)


@settings(max_examples=300)
@given(st.lists(WORDS, max_size=14).map(" ".join) | st.text(max_size=80))
def test_any_text_is_read_alike_each_time_within_its_bounds(complaint: str) -> None:
    """No text raises, spans lie inside it, and a second reader reads the same."""
    reading = READER.read(complaint)
    for finding in reading.findings:
        assert 0 <= finding.start < finding.end <= len(complaint)
    for start, end in reading.not_understood:
        assert complaint[start:end].strip()
    assert FindingsReader(LEXICON, {}).read(complaint) == reading


# Complaints as a doctor in Pakistan would understand them, written down before they were read. First what is there,
# then what is denied. `?` marks what may be read or not; a finding's parents are understood; any other is an error.
ENGLISH: list[Row] = [
    ("fever and cough for 3 days", "fever cough cough_duration=under_1_week", ""),
    ("No fever, but cough and runny nose x 3 days", "cough runny_nose cough_duration=under_1_week", "fever"),
    ("chest pain radiating to left arm with sweating", "chest_pain_radiates=arm_or_jaw sweating", ""),
    ("58M c/o crushing chest pain, diaphoretic, SOB", "chest_pain_character=pressing sweating breathlessness", ""),
    ("unresponsive, not breathing", "unresponsive respiratory_distress", ""),
    ("found unconscious at home", "unresponsive", ""),
    ("snake bite right foot 1 hour ago, swelling spreading from the bite", "snake_bite bite_site_swelling_spreading", ""),
    ("RTA, open fracture left leg, bleeding profusely", "high_risk_trauma open_fracture heavy_bleeding", ""),
    ("s/p fall, wrist pain, no LOC", "other_trauma limb_pain", "fainting"),
    ("denies chest pain or shortness of breath", "", "chest_pain breathlessness"),
    ("cough, chest pain", "cough chest_pain", ""),
    ("leg swelling, face normal", "leg_swelling", ""),
    ("abd pain, n/v, no diarrhea", "abdominal_pain vomiting ?nausea", "diarrhoea"),
    ("RLQ pain with fever and vomiting", "abdominal_pain_site=right_lower fever vomiting", ""),
    ("hematemesis x 2, black stool", "vomiting_blood black_stool", ""),
    ("severe headache, neck stiffness, photophobia", "severe_headache stiff_neck light_sensitivity", ""),
    ("sudden onset slurred speech and right side weakness", "speech_difficulty focal_weakness", ""),
    ("known case of DM and HTN, presented with fever", "diabetes_history hypertension_history fever", ""),
    ("father has diabetes, patient has headache", "headache ?family_history_same", ""),
    ("pregnant 36 weeks, bleeding per vagina", "gestation=third_trimester vaginal_bleeding", ""),
    ("convulsing now", "convulsion_active", ""),
    ("child not feeding, drowsy, fast breathing", "unable_to_feed_or_drink lethargy fast_breathing ?newborn_not_feeding", ""),
    ("took overdose of sleeping pills, suicidal", "medicine_overdose suicidal_thoughts", ""),
    ("drank organophosphate, pinpoint pupils, drooling", "organophosphate_exposure pinpoint_pupils drooling", ""),
    ("dog bite on the left leg", "animal_bite", ""),
    ("burn over face and chest", "major_burn", ""),
    ("no history of asthma, smoker", "smoking", "asthma_history"),
    ("painless ulcer on forearm for 2 months", "skin_ulcer_painless", ""),
    ("burning micturition and urinary frequency, afebrile", "burning_urine frequent_urination", "fever"),
    ("unable to pass urine since morning", "unable_to_pass_urine", ""),
    ("diarrhoea for 3 weeks without blood", "diarrhoea_over_14_days", "?bloody_diarrhoea"),
    ("fever for 10 days, weight loss, night sweats", "fever_over_7_days weight_loss night_sweats", ""),
    ("ear ache and discharge from ear", "ear_pain ear_discharge", ""),
    ("sudden loss of vision in right eye, no eye pain", "acute_visual_disturbance", "eye_pain"),
    ("collapsed at work, now alert", "fainting", "lethargy"),
    ("GCS 3, no pulse, CPR ongoing", "unresponsive ?weak_fast_pulse", ""),
    ("blue lips, gasping", "cyanosis respiratory_distress", ""),
    ("hx of asthma. Now wheezing, cannot speak full sentences", "asthma_history wheeze respiratory_distress", ""),
    ("lower abdominal pain, missed period, fainted", "pelvic_pain missed_period fainting ?abdominal_pain", ""),
    ("rash all over the body with itching since yesterday", "rash_site=whole_body ?rash_itchy ?itching_all_over", ""),
    ("mild headache, no vomiting, no visual disturbance", "headache", "vomiting acute_visual_disturbance ?severe_headache"),
    ("never had seizures before, today had a fit", "recent_seizure", ""),
    ("patient fell from roof, unconscious since then", "unresponsive high_risk_trauma ?other_trauma", ""),
    (
        "K/C of IHD c/o SOB on exertion, orthopnea, pedal edema",
        "heart_disease_history breathless_on_exertion breathlessness_lying_flat leg_swelling",
        "",
    ),
    ("pain score 9/10 in abdomen", "severe_pain abdominal_pain ?severe_abdominal_pain", ""),
    ("vomiting everything, sunken eyes", "vomits_everything sunken_eyes", ""),
    ("unable to walk after fall", "cannot_bear_weight ?other_trauma", ""),
    ("cough with blood for 2 weeks", "coughing_blood ?cough ?cough_duration=1_to_2_weeks", ""),
    ("numbness of left hand but no weakness", "numbness", "?focal_weakness ?acute_general_weakness ?fatigue"),
    (
        "swollen lips and difficulty breathing after penicillin injection",
        "lip_tongue_swelling breathlessness allergen_exposure",
        "",
    ),
    ("baby turned blue and is not feeding", "cyanosis unable_to_feed_or_drink ?newborn_not_feeding", ""),
    ("electric shock, burns on hand", "electric_shock burn", ""),
    ("mother says child had convulsion last night", "recent_seizure", ""),
    ("my mother is unconscious", "unresponsive", ""),
    ("I am writing for my father who has chest pain", "chest_pain", ""),
    ("my brother has TB, I have cough for 3 weeks", "cough cough_duration=over_2_weeks tb_contact", ""),
    ("no h/o DM/HTN/IHD, c/o fever", "fever", "diabetes_history hypertension_history heart_disease_history"),
    ("mother has diabetes and hypertension. c/o palpitations", "palpitations", ""),
    ("past history of stroke, now fever", "fever", ""),
    ("fits 5 years ago, now only headache", "headache", ""),
    ("stroke? left arm weakness since 1 hour", "focal_weakness", ""),
    ("cardiac arrest, CPR in progress", "unresponsive", ""),
    ("PPH, pulse barely palpable", "heavy_vaginal_bleeding weak_fast_pulse", ""),
    ("fever without cough or rash", "fever", "cough rash"),
    ("no cough, fever present", "fever", "cough"),
    ("chest pain not radiating, no SOB, known smoker", "chest_pain ?chest_pain_radiates=nowhere smoking", "breathlessness"),
    ("chest clear, no wheeze", "", "wheeze"),
    ("fever not resolved with paracetamol", "fever", ""),
    ("no improvement in fever", "fever", ""),
    ("not eating, fever", "fever ?loss_of_appetite ?unable_to_feed_or_drink", ""),
    ("does not have fever", "", "fever"),
    ("patient is not alert", "lethargy", ""),
    ("fever +ve, cough -ve", "fever", "cough"),
    ("LOC -ve, vomiting +ve after head injury", "vomiting head_injury", "fainting"),
    ("denies fever, cough, chest pain", "", "fever cough chest_pain"),
    ("no fever, cough or rash", "", "fever cough rash"),
    ("no fever cough for 2 days", "cough cough_duration=under_1_week", "fever"),
    ("severe headache, abdominal pain", "severe_headache abdominal_pain", ""),
    ("fever 3/7, cough 2/52", "fever cough cough_duration=1_to_2_weeks", ""),
    ("3 year old boy with fever", "fever", ""),
    ("8 months pregnant, headache", "headache gestation=third_trimester", ""),
    ("diarrhoea 10 times a day", "diarrhoea ?ongoing_diarrhoea", ""),
    ("h/o fever for 10 days", "fever_over_7_days", ""),
    ("chest pain started 2 years ago, worse today", "chest_pain", ""),
    ("my father is unconscious and has diabetes", "unresponsive diabetes_history", ""),
    ("brought by brother, stab wound chest", "high_risk_trauma", ""),
    ("I have fever and my wife has cough", "fever", ""),
    ("wife pregnant 9 months, convulsing", "gestation=third_trimester convulsion_active", ""),
    ("vision not blurred", "", "acute_visual_disturbance"),
    ("dog bite yesterday not vaccinated", "animal_bite unvaccinated", ""),
    ("abdominal pain and distension, not passing gas", "abdominal_pain abdominal_distension no_stool_or_gas", ""),
    ("no chest pain but short of breath", "breathlessness", "chest_pain"),
    ("mild fever without chills", "fever", "rigors"),
    ("burn injury to the face", "major_burn", ""),
    ("newborn jaundice day 2, poor suck", "baby_jaundice_early newborn_not_feeding ?jaundice", ""),
    ("drank acid, mouth burns", "corrosive_ingestion mouth_burns", ""),
    (
        "45 yr male with central chest pain since 2 hours, sweating, known diabetic",
        "chest_pain sweating diabetes_history ?chest_pain_at_rest",
        "",
    ),
    ("loose motions 15 times, sunken eyes, unable to drink", "diarrhoea sunken_eyes unable_to_feed_or_drink", ""),
    (
        "cough 1 month, evening fever, wt loss, no hemoptysis",
        "cough cough_duration=over_2_weeks fever_pattern=evening_rise weight_loss",
        "coughing_blood",
    ),
    ("high grade fever with chills, headache, no rash", "fever rigors headache", "rash"),
    ("postpartum day 3, heavy vaginal bleeding, fainted", "recent_delivery heavy_vaginal_bleeding fainting ?heavy_bleeding", ""),
]

URDU: list[Row] = [
    ("تین دن سے بخار اور کھانسی ہے", "fever cough cough_duration=under_1_week", ""),
    ("بخار نہیں ہے لیکن کھانسی ہے", "cough", "fever"),
    ("نہ بخار نہ کھانسی، صرف سر درد ہے", "headache", "fever cough"),
    ("سینے میں شدید درد اور پسینہ آ رہا ہے", "chest_pain severe_pain sweating", ""),
    ("سانس نہیں آ رہی", "respiratory_distress", ""),
    ("پیشاب نہیں آ رہا", "unable_to_pass_urine", ""),
    ("بچہ دودھ نہیں پی رہا اور سست ہے", "newborn_not_feeding lethargy ?unable_to_feed_or_drink", ""),
    ("بے ہوش ہو گیا ہے", "fainting ?unresponsive", ""),
    ("بچہ بے ہوش پڑا ہے", "unresponsive", ""),
    ("سانپ نے کاٹ لیا ہے پاؤں پر", "snake_bite", ""),
    ("کتے نے کاٹا ہے", "animal_bite", ""),
    ("جھٹکے لگ رہے ہیں", "convulsion_active ?recent_seizure", ""),
    ("جھٹکے لگے تھے کل رات", "recent_seizure", ""),
    ("ہاتھ پاؤں ٹھنڈے ہیں اور نبض تیز ہے", "cold_extremities ?weak_fast_pulse ?palpitations", ""),
    ("خون کی الٹی آئی ہے", "vomiting_blood", ""),
    ("دست اور الٹی دو دن سے", "diarrhoea vomiting", ""),
    ("پیٹ میں درد نہیں، الٹی نہیں", "", "abdominal_pain vomiting"),
    ("والد کو دل کی بیماری تھی، مجھے سینے میں درد ہے", "chest_pain", ""),
    ("حمل میں خون آ رہا ہے", "vaginal_bleeding pregnancy", ""),
    ("بلغم میں خون اور رات کو پسینہ، وزن کم ہو رہا ہے", "coughing_blood night_sweats weight_loss ?sweating", ""),
    ("دو ہفتے سے کھانسی ہے بخار نہیں", "cough cough_duration=1_to_2_weeks", "fever"),
    ("شوگر کا مریض ہے، پاؤں میں زخم ہے", "diabetes_history ?foot_ulcer", ""),
    ("بجلی کا کرنٹ لگا", "electric_shock", ""),
    ("منہ ٹیڑھا ہو گیا اور بازو کام نہیں کر رہا", "face_droop focal_weakness", ""),
    ("ہلکا بخار ہے، کپکپی نہیں", "fever", "rigors"),
    ("بخار اتر گیا ہے", "", "fever"),
    ("آنکھ میں تیزاب گیا", "eye_injury", ""),
    ("زہر کھا لیا ہے", "poisoning", ""),
    ("گلے میں درد ہے، نگلنے میں مشکل", "sore_throat swallowing_difficulty", ""),
    ("پسلیاں چل رہی ہیں اور سانس تیز ہے", "chest_indrawing fast_breathing", ""),
    ("ہونٹ نیلے پڑ گئے ہیں", "cyanosis", ""),
    ("گر گیا تھا، سر پر چوٹ لگی ہے، الٹی ہو رہی ہے", "other_trauma head_injury vomiting", ""),
    ("پیشاب میں جلن ہے، خون نہیں آتا", "burning_urine", "?blood_in_urine"),
    ("کمر درد، ٹانگوں میں سن پن", "back_pain numbness", ""),
    ("بھائی کو بھی بخار ہے اور مجھے کھانسی", "cough ?sick_contact", ""),
    ("کل سے پیٹ میں مروڑ اور خونی دست", "abdominal_pain_colicky bloody_diarrhoea", ""),
    ("گردن اکڑ گئی ہے، تیز بخار، روشنی چبھتی ہے", "stiff_neck fever light_sensitivity", ""),
    ("خودکشی کے خیالات آتے ہیں", "suicidal_thoughts", ""),
    ("پیدا ہوتے ہی نہیں رویا، اب نیلا پڑ رہا ہے", "birth_asphyxia cyanosis", ""),
    ("ماہواری نہیں آئی دو مہینے سے، چکر آتے ہیں", "missed_period dizziness", ""),
    ("بخار نهیں هے لیکن کھانسي هے", "cough", "fever"),
    ("ناک سے خون بہہ رہا ہے اور رک نہیں رہا", "nosebleed ?ongoing_bleeding", ""),
    ("سینے میں درد نہیں ہے مگر سانس پھولتا ہے", "breathlessness", "chest_pain"),
    ("الٹی بند ہو گئی ہے", "", "vomiting"),
    ("آنکھیں پیلی ہیں اور پیشاب گہرا پیلا", "jaundice dark_urine", ""),
    ("خون بہت بہہ رہا ہے رک نہیں رہا", "heavy_bleeding ongoing_bleeding", ""),
    ("بخار نہیں اتر رہا", "fever_pattern=continuous", ""),
    ("بخار بہت تیز ہے، دوا سے آرام نہیں آ رہا", "fever", ""),
    ("سانس ٹھیک نہیں آ رہا", "respiratory_distress ?breathlessness", ""),
    ("سانس آ نہیں رہی", "respiratory_distress", ""),
    ("کھانسی کم نہیں ہو رہی", "cough ?cough_duration=over_2_weeks", ""),
    ("بخار اور کھانسی نہیں ہے", "", "fever cough"),
    ("سر درد ہے الٹی نہیں", "headache", "vomiting"),
    ("بچی کو بخار ہے، دودھ نہیں پی رہی", "fever unable_to_feed_or_drink ?newborn_not_feeding", ""),
    ("ابو کو سینے میں درد ہے پسینہ آ رہا ہے", "chest_pain sweating", ""),
    ("۳ دن سے دست", "diarrhoea", ""),
    ("بغیر بخار کے کھانسی", "cough", "fever"),
    ("بخار کے بغیر کھانسی ہے", "cough", "fever"),
    ("پیشاب بند ہے دو دن سے", "unable_to_pass_urine", ""),
    ("بیٹا چھت سے گر گیا بے ہوش ہے", "high_risk_trauma unresponsive ?other_trauma", ""),
    ("خون بند نہیں ہو رہا", "ongoing_bleeding", ""),
    ("نیند کی گولیاں کھا لیں", "medicine_overdose", ""),
    ("بچے کو تیز بخار ہے اور جھٹکے لگ رہے ہیں", "fever convulsion_active ?recent_seizure", ""),
    ("زچگی کے بعد خون بند نہیں ہو رہا", "recent_delivery ongoing_bleeding ?heavy_vaginal_bleeding ?vaginal_bleeding", ""),
    ("منہ سے جھاگ آ رہی ہے سپرے پی لیا", "excess_saliva_tears organophosphate_exposure", ""),
    ("سر میں شدید درد ہے، گردن اکڑی ہوئی ہے، بخار", "severe_headache stiff_neck fever ?severe_pain", ""),
    ("کوئی بخار نہیں، صرف نزلہ زکام", "runny_nose", "fever"),
]

ROMAN: list[Row] = [
    ("bukhar nahi hai lekin khansi hai", "cough", "fever"),
    ("na bukhar na khansi", "", "fever cough"),
    ("3 din se bukhar aur sar dard", "fever headache", ""),
    ("do hafte se khansi hai", "cough cough_duration=1_to_2_weeks", ""),
    ("teen hafte se khansi aur balgham", "productive_cough cough_duration=over_2_weeks", ""),
    ("peshab nahi aa raha", "unable_to_pass_urine", ""),
    ("saans nahi aa rahi", "respiratory_distress", ""),
    ("seenay mein dard, paseena", "chest_pain sweating", ""),
    ("seene mein dard bayen bazu tak ja raha hai", "chest_pain_radiates=arm_or_jaw", ""),
    ("ulti band ho gayi, ab dast hain", "diarrhoea", "vomiting"),
    ("bacha behosh ho gaya, jhatke lag rahe hain", "fainting convulsion_active ?unresponsive ?recent_seizure", ""),
    ("saanp ne kaata hai haath pe", "snake_bite", ""),
    ("walid ko dil ki bimari hai, mujhe chakkar aate hain", "dizziness", ""),
    ("pait me shadeed dard aur ulti", "severe_abdominal_pain vomiting ?severe_pain", ""),
    ("zeher kha liya hai", "poisoning", ""),
    ("bachay ko 2 din se bukhar hai doodh nahi pee raha", "fever unable_to_feed_or_drink ?newborn_not_feeding", ""),
    ("khansi me khoon aata hai", "coughing_blood ?cough", ""),
    ("bukhar tha ab nahi hai", "fever", ""),
    ("kal se pait kharab hai, dast lag gaye", "diarrhoea", ""),
    ("gardan akri hui hai aur tez bukhar", "stiff_neck fever", ""),
    ("haath paon thanday hain, bp low hai", "cold_extremities low_blood_pressure_reading", ""),
    ("hamila hoon, neeche se khoon aa raha hai", "pregnancy vaginal_bleeding", ""),
    ("accident ho gaya, haddi bahar nikal aayi", "high_risk_trauma open_fracture", ""),
    ("neend nahi aati, ghabrahat hoti hai", "insomnia anxiety_panic", ""),
    ("bhook nahi lagti, wazan kam ho raha hai", "loss_of_appetite weight_loss", ""),
    ("kutte ne kaat liya kal", "animal_bite", ""),
    ("gala kharab hai aur nazla, bukhar nahi", "sore_throat runny_nose", "fever"),
    ("sugar ka mareez hoon, paseena aur chakkar", "diabetes_history sweating dizziness", ""),
    ("chehre pe soojan hai, tangon pe nahi", "face_swelling", "?leg_swelling"),
    ("aankh surkh hai aur pani aata hai", "red_eye ?eye_discharge", ""),
    ("dil ki dharkan tez hai or ghabrahat", "palpitations anxiety_panic", ""),
    ("mjhe bukhar h sar dard h 2 din sy", "fever headache", ""),
    ("saans phool rahi hai letne par", "breathlessness_lying_flat", ""),
    ("peshab mein jalan aur bar bar peshab", "burning_urine frequent_urination", ""),
    ("falij ho gaya hai, bol nahi pa raha", "focal_weakness speech_difficulty", ""),
    ("kaan mein dard hai, kaan behta nahi", "ear_pain", "ear_discharge"),
    ("bachi ko khasra nikla hai, aankhen laal", "koplik_or_red_eyes_with_rash red_eye ?rash", ""),
    ("mitti ka tel pi liya bachay ne", "kerosene_ingestion", ""),
    ("ulti nahi, dast nahi, pait dard hai", "abdominal_pain", "vomiting diarrhoea"),
    ("bukhar bohat tez hai, utar nahi raha, kapkapi", "fever rigors ?fever_pattern=continuous", ""),
    ("jism garam nahi hai", "", "fever"),
    ("chot nahi lagi, pao mein soojan hai", "leg_swelling", "other_trauma"),
    ("hosh mein nahi hai", "unresponsive", ""),
    ("bp high hai 200/110, sar mein dard", "high_blood_pressure_reading headache", ""),
    ("do mahine se period nahi aaye, ulti hoti hai", "missed_period vomiting", ""),
    ("bhai ko sugar hai, mujhe pyas bohat lagti hai", "excessive_thirst", ""),
    ("bukhar theek nahi ho raha", "fever", ""),
    ("bukhar dawa se kam nahi ho raha", "fever", ""),
    ("saans theek nahi hai", "breathlessness", ""),
    ("saans aa nahi rahi", "respiratory_distress", ""),
    ("bukhar khansi nahi", "fever", "cough"),
    ("bukhar ya khansi nahi hai", "", "fever cough"),
    ("bukhar hai na khansi bhi hai", "fever cough", ""),
    ("ulti nahi ruk rahi", "vomiting", ""),
    ("khoon ruk nahi raha", "ongoing_bleeding", ""),
    ("meri beti ko bukhar hai aur dast", "fever diarrhoea", ""),
    ("abbu ko falij ho gaya hai", "focal_weakness", ""),
    ("ammi ko sugar hai, paon sun ho rahe hain", "numbness", ""),
    ("bhai ko bhi khansi hai, mujhe bukhar", "fever ?sick_contact", ""),
    ("2 mahine ka bacha, bukhar", "fever", ""),
    ("2 mahine se khansi", "cough cough_duration=over_2_weeks", ""),
    ("hafton se khansi hai", "cough cough_duration=over_2_weeks", ""),
    ("derh mahine se bukhar", "fever_over_7_days", ""),
    ("kutte ne kaata bukhar nahi", "animal_bite", "fever"),
    ("bachay ne kerosene pi liya", "kerosene_ingestion", ""),
    ("jhatke nahi lag rahe ab", "", "convulsion_active ?recent_seizure"),
    ("chest pain nahi hai sirf gas hai", "", "chest_pain"),
    ("bilkul bukhar nahi, kamzori hai", "fatigue", "fever"),
    ("pani ki tarah motion aur ulti, peshab kam", "rice_water_stool vomiting little_urine", ""),
    ("saanp ne nahi kaata, bichu ne kaata hai", "scorpion_sting", "snake_bite"),
    ("pichle saal falij hua tha, ab bukhar hai", "fever ?focal_weakness", ""),
    ("5 saal pehle falij hua tha, ab bukhar hai", "fever", ""),
    ("behosh nahi hai, baat kar raha hai", "", "unresponsive ?fainting"),
    ("hath paon thanday aur peela rang, behosh", "cold_extremities unresponsive ?fainting ?jaundice ?pallor", ""),
    ("mery bety ko 3 din sy bukhar hy or khansi b", "fever cough ?cough_duration=under_1_week", ""),
    ("saans phool raha hai, tangon pe soojan, lait nahi sakta", "breathlessness leg_swelling ?breathlessness_lying_flat", ""),
    (
        "bachi ko dast lage hue hain, ankhen dhansi hui, pani nahi pi rahi",
        "diarrhoea sunken_eyes drinks_poorly ?unable_to_feed_or_drink",
        "",
    ),
    ("gari se accident hua, behosh ho gaya tha, ab hosh mein hai", "high_risk_trauma fainting", "unresponsive"),
    ("pet me seedhi taraf neeche dard, ulti, bukhar nahi", "?abdominal_pain abdominal_pain_site=right_lower vomiting", "fever"),
]

MIXED: list[Row] = [
    ("patient ko bukhar hai with cough and SOB", "fever cough breathlessness", ""),
    ("5 saal ka bacha, high grade fever aur fits aaye", "fever recent_seizure", ""),
    ("chest mein dard hai, no sweating", "chest_pain", "sweating"),
    (
        "35F pregnant hoon, BP high, sar dard aur dhundla nazar aata hai",
        "pregnancy high_blood_pressure_reading headache acute_visual_disturbance ?visual_change_in_pregnancy",
        "",
    ),
    ("motion lage hue hain, no vomiting, weakness bohat hai", "diarrhoea ?fatigue ?acute_general_weakness", "vomiting"),
    ("بخار hai aur khansi bhi", "fever cough", ""),
    ("sir meri ammi unconscious hain, sugar low", "unresponsive hypoglycaemia_reading", ""),
    ("BP low, hath pair thande, CRT > 3 s", "low_blood_pressure_reading cold_extremities slow_capillary_refill", ""),
    ("bukhar 102 hai, cough nahi, سر درد ہے", "fever headache", "cough"),
    ("baby ko jhatke lag rahe hain, fever bhi hai", "convulsion_active fever ?recent_seizure", ""),
    ("pt ko fever nahi but cough hai x 5 days", "cough cough_duration=under_1_week", "fever"),
    ("headache aur vomiting, no fits", "headache vomiting", "recent_seizure"),
]


@cache
def _catalogue() -> Catalogue:
    return load_catalogue(Path(__file__).resolve().parent.parent / "data" / "catalogue")


@pytest.fixture(scope="session")
def read() -> Callable[[str], Outcome]:
    """Reads a complaint with the whole catalogue: what is present and absent, by slug."""
    findings = _catalogue().findings
    codes = {slug: table["code"] for slug, table in findings.items()}
    slugs = {code: slug for slug, code in codes.items()}
    parents = {table["code"]: codes[table["parent"]] for table in findings.values() if "parent" in table}
    reader = FindingsReader(compile_lexicon(_catalogue()), parents)

    def outcome(complaint: str) -> Outcome:
        present, absent = set(), set()
        for code, value in reader.read_case(Case(case_id="a", complaint=complaint))[0].items():
            if value == ABSENT:
                absent.add(slugs[code])
            elif value == PRESENT:
                present.add(slugs[code])
            else:
                present |= {f"{slugs[code]}={one}" for one in ([value] if isinstance(value, str) else value)}
        return present, absent

    return outcome


def with_parents(slugs: Iterable[str]) -> set[str]:
    """The slugs and all their parents."""
    known = set(slugs)
    for slug in list(known):
        name = slug.partition("=")[0]
        while (name := _catalogue().findings[name].get("parent")) is not None:
            known.add(name)
    return known


def expected(column: str) -> Outcome:
    """What must be read and what may be read, from one column of a row."""
    return {s for s in column.split() if s[0] != "?"}, {s.lstrip("?") for s in column.split()}


@pytest.mark.parametrize(("complaint", "there", "denied"), ENGLISH + URDU + ROMAN + MIXED)
def test_complaints(read: Callable[[str], Outcome], complaint: str, there: str, denied: str) -> None:
    """Each complaint gives its findings, present and absent, and no others."""
    present, absent = read(complaint)
    must, may = expected(there)
    assert with_parents(must) <= present <= with_parents(may)
    must, may = expected(denied)
    assert must <= absent <= may


def test_a_long_complaint_is_read_to_its_end_with_spans_in_the_whole_text() -> None:
    """Far more words than a piece holds: what stands last is found where it stands, and a sentence is not cut in two."""
    reader = FindingsReader(compile_lexicon(_catalogue()), {})
    walk = "We walked to the shop and back. " * 60
    complaint = f"{walk}No fever. {walk}Chest pain since morning."
    said = {(complaint[found.start : found.end].casefold(), found.value) for found in reader.read(complaint).findings}
    assert said == {("chest pain", "present"), ("no fever", "absent")}
