"""Tests of the catalogue: the shipped one is sound, and every planted fault is found."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from inference.errors import DataError
from training.catalogue import (
    DATA_TYPES,
    Catalogue,
    check_catalogue,
    compile_catalogue,
    compile_lexicon,
    load_catalogue,
)

# The conditions of DDXPlus (Fansi Tchango et al. 2022), as its release spells them.
DDXPLUS_CONDITIONS = (
    "Acute COPD exacerbation / infection",
    "Acute dystonic reactions",
    "Acute laryngitis",
    "Acute otitis media",
    "Acute pulmonary edema",
    "Acute rhinosinusitis",
    "Allergic sinusitis",
    "Anaphylaxis",
    "Anemia",
    "Atrial fibrillation",
    "Boerhaave",
    "Bronchiectasis",
    "Bronchiolitis",
    "Bronchitis",
    "Bronchospasm / acute asthma exacerbation",
    "Chagas",
    "Chronic rhinosinusitis",
    "Cluster headache",
    "Croup",
    "Ebola",
    "Epiglottitis",
    "GERD",
    "Guillain-Barré syndrome",
    "HIV (initial infection)",
    "Influenza",
    "Inguinal hernia",
    "Larygospasm",
    "Localized edema",
    "Myasthenia gravis",
    "Myocarditis",
    "PSVT",
    "Pancreatic neoplasm",
    "Panic attack",
    "Pericarditis",
    "Pneumonia",
    "Possible NSTEMI / STEMI",
    "Pulmonary embolism",
    "Pulmonary neoplasm",
    "SLE",
    "Sarcoidosis",
    "Scombroid food poisoning",
    "Spontaneous pneumothorax",
    "Spontaneous rib fracture",
    "Stable angina",
    "Tuberculosis",
    "URTI",
    "Unstable angina",
    "Viral pharyngitis",
    "Whooping cough",
)


@pytest.fixture(scope="module")
def shipped(catalogue_folder: Path) -> Catalogue:
    """The shipped catalogue, read once."""
    return load_catalogue(catalogue_folder)


@pytest.fixture(scope="module")
def release(shipped: Catalogue) -> dict:
    """The shipped catalogue, compiled once."""
    return compile_catalogue(shipped)


def test_the_shipped_catalogue_has_no_problem(shipped):
    """What `nabz-train data check` says of it."""
    assert check_catalogue(shipped) == []


def test_the_shipped_catalogue_is_wide_enough(shipped):
    """At least 90 conditions and 220 findings."""
    assert len(shipped.conditions) >= 90
    assert len(shipped.findings) >= 220


def test_every_ddxplus_condition_is_covered_once(shipped):
    """All 49, each by one condition, and no name that DDXPlus does not have."""
    assert len(set(DDXPLUS_CONDITIONS)) == 49
    named = [table["ddxplus"] for table in shipped.conditions.values() if "ddxplus" in table]
    assert sorted(named) == sorted(DDXPLUS_CONDITIONS)


def test_the_list_above_is_the_release_s(shared_data):
    """The names in this file are those of the release itself."""
    names = json.loads((shared_data / "ddxplus" / "release_conditions.json").read_text(encoding="utf-8"))
    assert sorted(names) == sorted(DDXPLUS_CONDITIONS)


def test_the_release_has_ddxplus_s_keys(release, shipped):
    """A reader of DDXPlus files can read the compiled catalogue."""
    condition_keys = {"condition_name", "cond-name-eng", "icd10-id", "symptoms", "antecedents", "severity"}
    evidence_keys = {
        "name",
        "code_question",
        "question_en",
        "is_antecedent",
        "default_value",
        "value_meaning",
        "possible-values",
        "data_type",
    }
    assert len(release["conditions"]) == len(release["statistics"]) == len(shipped.conditions)
    assert len(release["evidences"]) == len(shipped.findings)
    assert all(condition_keys <= entry.keys() for entry in release["conditions"].values())
    assert all(evidence_keys <= entry.keys() for entry in release["evidences"].values())
    assert all(entry["name"] == code for code, entry in release["evidences"].items())
    assert {entry["data_type"] for entry in release["evidences"].values()} == set(DATA_TYPES.values())
    assert all(entry["code_question"] in release["evidences"] for entry in release["evidences"].values())


def test_the_release_has_no_key_less_than_the_real_one(release, shared_data):
    """Only the French names are left out."""
    for kind in ("conditions", "evidences"):
        real = json.loads((shared_data / "ddxplus" / f"release_{kind}.json").read_text(encoding="utf-8"))
        wanted = {key for entry in real.values() for key in entry if "fr" not in key.split("-") and not key.endswith("_fr")}
        assert all(wanted <= entry.keys() for entry in release[kind].values())


def test_every_listed_finding_of_a_condition_is_a_symptom_or_an_antecedent(release):
    """Each once, by code, as the statistics list them."""
    for name, entry in release["conditions"].items():
        assert not entry["symptoms"].keys() & entry["antecedents"].keys()
        assert entry["symptoms"].keys() | entry["antecedents"].keys() == release["statistics"][name]["findings"].keys()


def test_every_probability_has_a_basis(release):
    """No number without a word on where it comes from; the findings' backgrounds too."""
    for entry in release["statistics"].values():
        assert entry["basis"].keys() == entry["findings"].keys()
        assert all(isinstance(basis, str) and basis for basis in entry["basis"].values())
    assert all(evidence["background_basis"] for evidence in release["evidences"].values())


def test_priors_sum_to_one_and_keep_their_ratios(release, shipped):
    """Priors are written per 10,000 consultations."""
    priors = {name: entry["prior"] for name, entry in release["statistics"].items()}
    assert sum(priors.values()) == pytest.approx(1)
    cholera, diarrhoea = "cholera", "acute_watery_diarrhoea"
    written = shipped.conditions[cholera]["prior_per_10k"] / shipped.conditions[diarrhoea]["prior_per_10k"]
    assert priors[cholera] / priors[diarrhoea] == pytest.approx(written)


def test_a_binary_finding_a_list_of_values_and_a_basis_of_its_own_compile():
    """The three ways to write a probability."""
    finding = {
        "type": "binary",
        "group": "g",
        "question_en": "?",
        "question_ur": "?",
        "question_roman": "?",
        "name_en": "x",
        "name_ur": "x",
    }
    value = {"name_en": "v", "name_ur": "v", "name_roman": "v"}
    tiny = Catalogue(
        findings={
            "cough": {**finding, "code": "F_1", "phrases": {"en": ["cough"]}, "negated": {"en": ["no cough"]}},
            "when": {**finding, "code": "F_2", "type": "categorical", "parent": "cough", "values": {"day": value, "night": value}},
            "smoking": {**finding, "code": "F_3", "antecedent": True},
        },
        conditions={},
        reading={"severe": [{"of": "cough", "finding": "when", "value": "night"}]},
        applies={},
        districts={"Lahore": "punjab"},
    )
    condition = {
        "name_en": "Croup",
        "name_ur": "x",
        "icd10": "J05",
        "severity": 2,
        "specialty": "paediatrics",
        "basis": "estimate",
        "prior_per_10k": 5,
        "age": {"child": 2.0},
        "chief": ["cough"],
        "findings": {"cough": 0.9, "when": {"day": 0.25, "night": 0.75, "basis": "a study"}, "smoking": {"p": 0.1, "basis": "census"}},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.catalogue.check_catalogue", lambda _catalogue: [])
        compiled = compile_catalogue(replace(tiny, conditions={"croup": condition}))
    assert compiled["statistics"]["croup"] == {
        "prior": 1.0,
        "findings": {"F_1": {"1": 0.9}, "F_2": {"day": 0.25, "night": 0.75}, "F_3": {"1": 0.1}},
        "basis": {"F_1": "estimate", "F_2": "a study", "F_3": "census"},
        "age": {"child": 2.0},
        "chief": ["F_1"],
    }
    assert compiled["conditions"]["croup"]["symptoms"] == {"F_1": {}, "F_2": {}}
    assert compiled["conditions"]["croup"]["antecedents"] == {"F_3": {}}
    assert compiled["evidences"]["F_2"]["code_question"] == "F_1"
    assert compiled["evidences"]["F_2"]["possible-values"] == ["day", "night"]
    assert compile_lexicon(tiny) == {
        "phrases": [["F_1", "", "present", "en", "cough"], ["F_1", "", "absent", "en", "no cough"]],
        "severe": [{"of": "F_1", "finding": "F_2", "value": "night"}],
        "districts": {"Lahore": "punjab"},
    }


def test_the_lexicon_names_codes_only(shipped):
    """The findings reader knows no slug."""
    codes = {table["code"] for table in shipped.findings.values()}
    lexicon = compile_lexicon(shipped)
    assert {phrase[0] for phrase in lexicon["phrases"]} == codes
    rules = [rule for kind in shipped.reading for rule in lexicon[kind]]
    assert {rule[key] for rule in rules for key in ("finding", "of") if key in rule} <= codes


def put(*path, value) -> Callable[[Catalogue], None]:
    """A change that writes one thing into the catalogue's tables."""

    def change(catalogue: Catalogue) -> None:
        here = getattr(catalogue, path[0])
        for key in path[1:-1]:
            here = here[key]
        here[path[-1]] = value

    return change


def drop(*path) -> Callable[[Catalogue], None]:
    """A change that takes one thing away."""

    def change(catalogue: Catalogue) -> None:
        here = getattr(catalogue, path[0])
        for key in path[1:-1]:
            here = here[key]
        del here[path[-1]]

    return change


DIARRHOEA = ("conditions", "acute_watery_diarrhoea")
INFARCTION = ("conditions", "myocardial_infarction", "findings")
PLANTED: list[tuple[Callable[[Catalogue], None], str]] = [
    (put("findings", "cough", "code", value="F_044"), "code F_044 is used by 2 findings"),
    (drop("findings", "cough", "question_ur"), "finding cough lacks question_ur"),
    (put("findings", "cough", "name_en", value=""), "finding cough lacks name_en"),
    (
        put("findings", "cough", "type", value="yes/no"),
        "finding cough: type is 'yes/no', expected one of ['binary', 'categorical', 'multi']",
    ),
    (drop("findings", "cough", "type"), "finding cough: type is None, expected one of ['binary', 'categorical', 'multi']"),
    (put("findings", "cough_duration", "parent", value="coughing"), "finding cough_duration: its parent coughing is not a finding"),
    (
        put("findings", "cough", "parent", value="cough_duration"),
        "finding cough: its parent cough_duration is not a yes-or-no finding",
    ),
    (put("findings", "cough", "parent", value="cough_duration"), "finding cough is its own ancestor"),
    (put("findings", "cough", "parent", value="cough"), "finding cough is its own ancestor"),
    (put("findings", "cough", "background", value=1.0), "finding cough: background is 1.0, expected a probability between 0 and 1"),
    (drop("findings", "cough", "background"), "finding cough: background is None, expected a probability between 0 and 1"),
    (
        put("findings", "cough", "values", value={"dry": {}}),
        "finding cough: values belong to categorical and multi findings, and only to them",
    ),
    (
        drop("findings", "cough_duration", "values"),
        "finding cough_duration: values belong to categorical and multi findings, and only to them",
    ),
    (put("findings", "abdominal_pain", "code", value="F_999"), "the IITT rules use F_100, which no finding has"),
    (
        put("findings", "abdominal_pain", "iitt", value="red"),
        "finding abdominal_pain (F_100) is an IITT component sign in the rules, but its table says red",
    ),
    (
        drop("findings", "abdominal_pain", "iitt"),
        "finding abdominal_pain (F_100) is an IITT component sign in the rules, but its table says None",
    ),
    (put("findings", "cough", "iitt", value="red"), "finding cough says it is an IITT red sign, but no rule uses it"),
    (put("findings", "cough", "phrases", "ur", value=[]), "finding cough has no phrase in ur"),
    (drop("findings", "cough", "negated", "roman"), "finding cough has no negated phrase in roman"),
    (
        drop("findings", "cough_duration", "values", "over_2_weeks", "phrases", "en"),
        "finding cough_duration.over_2_weeks has no phrase in en",
    ),
    (
        drop("findings", "cough_duration", "values", "over_2_weeks", "name_roman"),
        "finding cough_duration.over_2_weeks: a value needs name_en, name_ur and name_roman",
    ),
    (
        put("findings", "fever", "phrases", "en", value=["Dry  cough"]),
        "the phrase 'Dry  cough' belongs to cough and to fever",
    ),
    (drop(*DIARRHOEA, "icd10"), "condition acute_watery_diarrhoea lacks icd10"),
    (drop(*DIARRHOEA, "findings"), "condition acute_watery_diarrhoea lacks findings"),
    (put(*DIARRHOEA, "severity", value=0), "condition acute_watery_diarrhoea: severity is 0, expected 1 to 5"),
    (put(*DIARRHOEA, "severity", value=6), "condition acute_watery_diarrhoea: severity is 6, expected 1 to 5"),
    (put(*DIARRHOEA, "specialty", value="magic"), "condition acute_watery_diarrhoea: specialty magic is not known"),
    (
        put(*DIARRHOEA, "age", value={"teen": 1.0}),
        "condition acute_watery_diarrhoea: age.teen = 1.0 is not a known name with a multiplier of 0 to 100",
    ),
    (
        put(*DIARRHOEA, "season", value={"monsoon": -1}),
        "condition acute_watery_diarrhoea: season.monsoon = -1 is not a known name with a multiplier of 0 to 100",
    ),
    (
        put(*DIARRHOEA, "province", value={"punjab": 101}),
        "condition acute_watery_diarrhoea: province.punjab = 101 is not a known name with a multiplier of 0 to 100",
    ),
    (
        put(*DIARRHOEA, "sex", value={"male": "often"}),
        "condition acute_watery_diarrhoea: sex.male = often is not a known name with a multiplier of 0 to 100",
    ),
    (put(*DIARRHOEA, "chief", value=["cough"]), "condition acute_watery_diarrhoea: chief finding cough is not among its findings"),
    (put(*DIARRHOEA, "findings", "hiccups", value=0.1), "condition acute_watery_diarrhoea: hiccups is not a finding"),
    (put(*DIARRHOEA, "basis", value=""), "condition acute_watery_diarrhoea: vomiting has no basis"),
    (
        put(*DIARRHOEA, "findings", "vomiting", value={"p": 0.6, "basis": ""}),
        "condition acute_watery_diarrhoea: vomiting has no basis",
    ),
    (
        put(*DIARRHOEA, "findings", "cough_duration", value={"under_1_week": 1.0}),
        "condition acute_watery_diarrhoea: cough_duration needs its parent cough listed too",
    ),
    (
        put(*DIARRHOEA, "findings", "vomiting", value={"often": 0.6}),
        "condition acute_watery_diarrhoea: vomiting is binary, its probabilities are written for another type",
    ),
    (
        put(*INFARCTION, "chest_pain_character", value=0.5),
        "condition myocardial_infarction: chest_pain_character is categorical, its probabilities are written for another type",
    ),
    (
        put(*INFARCTION, "abdominal_pain_site", value={"elbow": 0.5}),
        "condition myocardial_infarction: abdominal_pain_site has no value elbow",
    ),
    (
        put(*INFARCTION, "abdominal_pain_site", value={"epigastric": 1.0}),
        "condition myocardial_infarction: abdominal_pain_site.epigastric has probability 1.0, expected between 0 and 1",
    ),
    (
        put(*DIARRHOEA, "findings", "vomiting", value=0.0),
        "condition acute_watery_diarrhoea: vomiting has probability 0.0, expected between 0 and 1",
    ),
    (
        put(*DIARRHOEA, "findings", "vomiting", value="0.6"),
        "condition acute_watery_diarrhoea: vomiting has probability '0.6', which is not a number",
    ),
    (
        put(*INFARCTION, "chest_pain_character", value={"pressing": 0.5, "burning": 0.25}),
        "condition myocardial_infarction: the values of chest_pain_character sum to 0.75, expected 1",
    ),
    (
        put(*DIARRHOEA, "prior_per_10k", value=0),
        "condition acute_watery_diarrhoea can never be drawn: its prior or all its age multipliers are 0",
    ),
    (
        put(*DIARRHOEA, "age", value={"adult": 0.0}),
        "condition acute_watery_diarrhoea can never be drawn: its prior or all its age multipliers are 0",
    ),
    (
        put("findings", "hiccups", value={"code": "F_998", "type": "binary", "background": 0.01}),
        "finding hiccups is used by no condition and by no rule",
    ),
    (
        put("reading", "severe", value=[{"of": "headake", "finding": "severe_headache"}]),
        "reading.toml: severe names headake, which is not a finding",
    ),
    (
        put("reading", "duration", value=[{"of": "cough", "finding": "cough_duration", "value": "a_year"}]),
        "reading.toml: cough_duration has no value a_year",
    ),
    (put("applies", "female_only", value=["hiccups"]), "applies.toml: female_only names hiccups, which is not a finding"),
    (
        put("applies", "women_only", value=["pregnancy"]),
        "applies.toml: women_only is not a known limit, expected one of female_only, male_only, from_12_years, under_2_years, under_12_years",
    ),
    (put("districts", "Lahore", value="panjab"), "districts.toml: Lahore is in panjab, which is not a province"),
]


@pytest.mark.parametrize(("plant", "sentence"), PLANTED, ids=[sentence[:60] for _, sentence in PLANTED])
def test_a_planted_fault_is_found(shipped, plant, sentence):
    """Copy the tables, break one thing, and the checker says so in one sentence."""
    broken = copy.deepcopy(shipped)
    plant(broken)
    assert sentence in check_catalogue(broken)


def test_compiling_refuses_an_inconsistent_catalogue_with_every_problem(shipped):
    """The whole list at once, so that a clinician corrects it in one go."""
    broken = copy.deepcopy(shipped)
    put(*DIARRHOEA, "severity", value=6)(broken)
    put(*DIARRHOEA, "specialty", value="magic")(broken)
    with pytest.raises(DataError) as caught:
        compile_catalogue(broken)
    assert str(caught.value) == (
        "the catalogue is inconsistent; correct these and run again:\n"
        "condition acute_watery_diarrhoea: severity is 6, expected 1 to 5\n"
        "condition acute_watery_diarrhoea: specialty magic is not known"
    )


def catalogue_files(folder: Path) -> Path:
    """The files of a catalogue with nothing in them."""
    for name in ("findings", "conditions"):
        (folder / name).mkdir(parents=True)
        (folder / name / "a.toml").write_text("")
    for name in ("reading.toml", "applies.toml", "districts.toml"):
        (folder / name).write_text("")
    return folder


def test_files_are_merged_and_a_slug_defined_twice_is_refused(tmp_path):
    """One file a group of conditions; a name stands in one place."""
    folder = catalogue_files(tmp_path / "c")
    (folder / "findings" / "a.toml").write_text('[cough]\ncode = "F_1"\n')
    (folder / "findings" / "b.toml").write_text('[fever]\ncode = "F_2"\n')
    (folder / "districts.toml").write_text('punjab = ["Lahore", "Multan"]\n')
    loaded = load_catalogue(folder)
    assert loaded.findings == {"cough": {"code": "F_1"}, "fever": {"code": "F_2"}}
    assert loaded.districts == {"Lahore": "punjab", "Multan": "punjab"}
    second = folder / "findings" / "c.toml"
    second.write_text('[fever]\ncode = "F_3"\n')
    with pytest.raises(DataError) as caught:
        load_catalogue(folder)
    assert str(caught.value) == f"{second}: fever is already defined in another file of findings"


def test_files_that_cannot_be_read_are_named(tmp_path):
    """Broken TOML, text in another encoding, a missing file, an empty folder."""
    folder = catalogue_files(tmp_path / "c")
    (folder / "conditions" / "a.toml").write_text("[cholera\n")
    with pytest.raises(DataError, match=r"a\.toml is not valid TOML: .*line 1"):
        load_catalogue(folder)
    (folder / "conditions" / "a.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"a\.toml is not valid TOML: "):
        load_catalogue(folder)
    (folder / "conditions" / "a.toml").write_text("")
    (folder / "applies.toml").unlink()
    with pytest.raises(DataError) as caught:
        load_catalogue(folder)
    assert str(caught.value) == f"{folder / 'applies.toml'} cannot be read: No such file or directory"
    with pytest.raises(DataError) as caught:
        load_catalogue(tmp_path)
    assert str(caught.value) == f"{tmp_path / 'findings'} has no .toml files: name the catalogue's folder"
