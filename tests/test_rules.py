"""The rule floor: charts at their boundaries, every IITT sign at its age, and what must hold for any case."""

from __future__ import annotations

import tomllib
from importlib import resources
from itertools import product
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from inference.case import Case, Vitals
from inference.errors import PolicyError
from inference.rule_tables import IittTable, at_least
from inference.rules import RuleFloor, UnknownVital, assess_floor, iitt_signs

ADULT, CHILD, DAY = 30, 7, 1 / 365.25
NORMAL: dict[str, Any] = {
    "respiratory_rate_per_minute": 16,
    "spo2_percent": 97,
    "on_oxygen": False,
    "systolic_mmhg": 120,
    "diastolic_mmhg": 75,
    "pulse_per_minute": 80,
    "consciousness": "A",
    "temperature_celsius": 37.0,
    "glucose_mg_dl": 95,
    "capillary_refill_seconds": 2,
}


def floor_of(*present: str, vitals: dict[str, Any] | None = None, age_years: float | None = ADULT, **fields: Any) -> RuleFloor:
    """The floor of a case with these findings present and only these vitals measured."""
    case = Case(case_id="a", age_years=age_years, vitals=Vitals(**(vitals or {})), **fields)
    return assess_floor(case, dict.fromkeys(present, "present"))


def ids(floor: RuleFloor) -> list[str]:
    return [rule.id for rule in floor.fired]


def table(name: str) -> dict[str, Any]:
    return tomllib.loads((resources.files("inference") / name).read_text(encoding="utf-8"))


# ---- NEWS2: the published chart, written out by hand ----

CHART: dict[str, list[tuple[Any, int]]] = {
    "respiratory_rate_per_minute": [
        *((8, 3), (9, 1), (11, 1), (12, 0), (20, 0), (21, 2), (24, 2), (25, 3)),
        *((0, 3), (60, 3)),
    ],
    "spo2_percent": [(60, 3), (91, 3), (92, 2), (93, 2), (94, 1), (95, 1), (96, 0), (100, 0)],
    "on_oxygen": [(False, 0), (True, 2)],
    "systolic_mmhg": [
        *((40, 3), (90, 3), (91, 2), (100, 2), (101, 1), (110, 1), (111, 0), (219, 0)),
        *((220, 3), (300, 3)),
    ],
    "pulse_per_minute": [
        *((0, 3), (40, 3), (41, 1), (50, 1), (51, 0), (90, 0), (91, 1), (110, 1), (111, 2), (130, 2)),
        *((131, 3), (220, 3)),
    ],
    "consciousness": [("A", 0), ("C", 3), ("V", 3), ("P", 3), ("U", 3)],
    "temperature_celsius": [
        *((30.0, 3), (35.0, 3), (35.1, 1), (36.0, 1), (36.1, 0), (38.0, 0), (38.1, 1), (39.0, 1)),
        *((39.1, 2), (42.0, 2)),
    ],
}
SCALE_2_ON_AIR = [(70, 3), (83, 3), (84, 2), (85, 2), (86, 1), (87, 1), (88, 0), (92, 0), (93, 0), (100, 0)]
SCALE_2_ON_OXYGEN = [
    *((70, 3), (83, 3), (84, 2), (85, 2), (86, 1), (87, 1), (88, 0), (92, 0), (93, 1), (94, 1), (95, 2)),
    *((96, 2), (97, 3), (100, 3)),
]


@pytest.mark.parametrize(("vital", "value", "points"), [(vital, *row) for vital, rows in CHART.items() for row in rows])
def test_news2_scores_both_sides_of_every_boundary(vital: str, value: Any, points: int) -> None:
    """Each reading gets the points that the chart prints for it."""
    news2 = floor_of(vitals=NORMAL | {vital: value}).news2
    assert news2 is not None
    assert (news2.points[vital], news2.lower, news2.upper) == (points, points, points)


@pytest.mark.parametrize(
    ("on_oxygen", "spo2", "points"),
    [(False, *row) for row in SCALE_2_ON_AIR] + [(True, *row) for row in SCALE_2_ON_OXYGEN],
)
def test_news2_scale_2_for_known_hypercapnic_failure(on_oxygen: bool, spo2: int, points: int) -> None:
    """With known hypercapnic failure, SpO2 is scored on scale 2, and a high value counts on oxygen only."""
    vitals = NORMAL | {"spo2_percent": spo2, "on_oxygen": on_oxygen}
    news2 = floor_of(vitals=vitals, known_hypercapnic_failure=True).news2
    assert news2 is not None
    assert (news2.points["spo2_percent"], news2.spo2_scale) == (points, 2)


@pytest.mark.parametrize("known", [None, False])
def test_news2_uses_scale_1_unless_hypercapnic_failure_is_known(known: bool | None) -> None:
    """An SpO2 of 90 scores 3 unless hypercapnic failure is known."""
    news2 = floor_of(vitals=NORMAL | {"spo2_percent": 90}, known_hypercapnic_failure=known).news2
    assert news2 is not None
    assert (news2.points["spo2_percent"], news2.spo2_scale) == (3, 1)


@pytest.mark.parametrize(
    ("vital", "value", "points"),
    [("temperature_celsius", 35.05, 3), ("temperature_celsius", 39.05, 2), ("spo2_percent", 91.5, 3)],
)
def test_news2_reads_a_value_between_two_bands_as_the_worse(vital: str, value: float, points: int) -> None:
    """A reading finer than the chart never scores less than its worse neighbour."""
    news2 = floor_of(vitals=NORMAL | {vital: value}).news2
    assert news2 is not None
    assert news2.points[vital] == points


@pytest.mark.parametrize(
    ("changes", "total", "level", "fired"),
    [
        ({"pulse_per_minute": 111, "temperature_celsius": 39.0, "systolic_mmhg": 105}, 4, 5, []),
        ({"pulse_per_minute": 111, "temperature_celsius": 39.0, "systolic_mmhg": 95}, 5, 3, ["news2_urgent"]),
        (
            {"pulse_per_minute": 111, "respiratory_rate_per_minute": 22, "systolic_mmhg": 95},
            *(6, 3, ["news2_urgent"]),
        ),
        (
            {
                "pulse_per_minute": 111,
                "respiratory_rate_per_minute": 22,
                "systolic_mmhg": 95,
                "temperature_celsius": 38.5,
            },
            *(7, 2, ["news2_emergency"]),
        ),
        ({"systolic_mmhg": 85}, 3, 3, ["news2_single_3"]),
        (
            {"systolic_mmhg": 85, "on_oxygen": True, "spo2_percent": 93},
            *(7, 2, ["news2_emergency", "news2_single_3"]),
        ),
    ],
)
def test_news2_total_sets_the_level(changes: dict[str, Any], total: int, level: int, fired: list[str]) -> None:
    """Seven or more is level 2; five, six or any single three is level 3; less says nothing."""
    floor = floor_of(vitals=NORMAL | changes)
    assert floor.news2 is not None
    assert (floor.news2.lower, floor.news2.upper, floor.level) == (total, total, level)
    assert ids(floor) == fired


def test_news2_bounds_when_nothing_is_measured() -> None:
    """Without vitals the total is anything from 0 to 20 and the floor says nothing."""
    floor = floor_of()
    assert floor.news2 is not None
    assert (floor.news2.lower, floor.news2.upper, floor.level) == (0, 20, 5)
    assert set(floor.news2.points.values()) == {None}


def test_news2_bounds_when_some_vitals_are_unknown() -> None:
    """The lower bound alone fires a rule, and the reason shows both bounds."""
    floor = floor_of(vitals={"pulse_per_minute": 120, "respiratory_rate_per_minute": 22, "systolic_mmhg": 95})
    assert floor.news2 is not None
    assert (floor.news2.lower, floor.news2.upper) == (6, 17)
    assert ids(floor) == ["news2_urgent"]
    assert floor.fired[0].because == (
        "NEWS2 6 to 17",
        "respiratory_rate_per_minute 22",
        "systolic_mmhg 95",
        "pulse_per_minute 120",
    )


def test_news2_scale_2_bounds_when_oxygen_is_unknown() -> None:
    """On scale 2, SpO2 of 95 scores 0 on air and 2 on oxygen, so unknown oxygen spans 0 to 4."""
    vitals = NORMAL | {"spo2_percent": 95, "on_oxygen": None}
    news2 = floor_of(vitals=vitals, known_hypercapnic_failure=True).news2
    assert news2 is not None
    assert (news2.lower, news2.upper) == (0, 4)
    assert news2.points["spo2_percent"] is None


@pytest.mark.parametrize(
    ("fields", "present", "used"),
    [
        ({"age_years": 16}, (), True),
        ({"age_years": 15.9}, (), False),
        ({"age_years": None}, (), True),
        ({"pregnant": True}, (), False),
        ({"pregnant": False}, (), True),
        ({"pregnant": None}, ("F_191",), False),
        ({"pregnant": False}, ("F_191",), True),
        ({"pregnant": None}, ("F_194",), True),
    ],
)
def test_news2_population(fields: dict[str, Any], present: tuple[str, ...], used: bool) -> None:
    """The score is left out only for those who are known to be under 16 or pregnant."""
    assert (floor_of(*present, vitals=NORMAL, **fields).news2 is not None) == used


# ---- IITT: every sign, told in findings and vitals ----

P = {"pregnant": True}
BANDS = ("under_1", "1_to_4", "5_to_11")
SIGNS: dict[str, tuple[int, list[dict[str, Any]]]] = {
    # red, both tables
    "unresponsive": (1, [{"present": ["F_143"]}, {"vitals": {"consciousness": "U"}}]),
    "stridor": (1, [{"present": ["F_058"]}]),
    "respiratory_distress": (1, [{"present": [code]} for code in ("F_054", "F_055", "F_057", "F_060")]),
    "slow_capillary_refill": (1, [{"present": ["F_024"]}, {"vitals": {"capillary_refill_seconds": 3.1}}]),
    "weak_fast_pulse": (1, [{"present": ["F_025"]}]),
    "heavy_bleeding": (1, [{"present": ["F_224"]}]),
    "heavy_vaginal_bleeding": (2, [{"present": ["F_187"]}]),
    "heavy_bleeding_after_birth": (1, [{"present": ["F_187", code]} for code in ("F_198", "F_200")]),
    "active_convulsions": (1, [{"present": ["F_145"]}]),
    "hypoglycaemia": (2, [{"present": ["F_260"]}, {"vitals": {"glucose_mg_dl": 69}}]),
    "high_risk_trauma": (2, [{"present": ["F_221"]}]),
    "major_burn": (2, [{"present": ["F_234"]}]),
    "burn_with_smoke": (2, [{"present": ["F_233", "F_236"]}]),
    "burn_under_2_years": (2, [{"present": ["F_233"], "age_years": 1.9}]),
    "burn_over_70_years": (2, [{"present": ["F_233"], "age_years": 71}]),
    "poisoning": (2, [{"present": [code]} for code in ("F_237", "F_238", "F_239", "F_240", "F_241")]),
    "threatened_limb": (2, [{"present": ["F_231"]}]),
    "snake_bite": (2, [{"present": ["F_245"]}, {"present": ["F_246"]}]),
    # red, adults
    "heart_rate_red": (2, [{"vitals": {"pulse_per_minute": rate}} for rate in (49, 151)]),
    "two_of_infection_or_brain": (
        2,
        [
            {"present": ["F_142", "F_137"]},
            {"present": ["F_144", "F_138"]},
            {"present": ["F_142", "F_139"]},
            {"present": ["F_142"], "vitals": {"temperature_celsius": 39.1}},
            {"present": ["F_137"], "vitals": {"temperature_celsius": 35.9}},
            {"vitals": {"consciousness": "C", "temperature_celsius": 39.1}},
        ],
    ),
    "reported_fever_with_brain_sign": (
        2,
        [{"present": ["F_001", "F_142"]}, {"present": ["F_001"], "vitals": {"consciousness": "V"}}],
    ),
    "chest_or_abdominal_pain_over_50": (
        2,
        [{"present": [code], "age_years": age} for code, age in product(("F_061", "F_078", "F_082", "F_100", "F_106"), (50.1, 51))],
    ),
    "ecg_ischaemia": (2, [{"present": ["F_084"]}]),
    "violent_or_aggressive": (2, [{"present": ["F_161"]}]),
    # red, pregnancy
    "pregnant_heavy_bleeding": (1, [{"present": ["F_187"], **P}, {"present": ["F_191", "F_224"]}]),
    "pregnant_severe_abdominal_pain": (
        2,
        [{"present": ["F_106"], **P}] + [{"present": ["F_106", f"F_{pregnancy}"]} for pregnancy in (191, 192, 193, 194, 195, 196, 197)],
    ),
    "pregnant_severe_pain_in_abdomen": (
        2,
        [{"present": ["F_015", code], **P} for code in ("F_100", "F_189")],
    ),
    "pregnant_seizure_or_altered_mental_status": (
        2,
        [{"present": [code], **P} for code in ("F_145", "F_146", "F_144", "F_022")] + [{"vitals": {"consciousness": "C"}, **P}],
    ),
    "pregnant_severe_headache": (2, [{"present": [code], **P} for code in ("F_138", "F_139")]),
    "pregnant_visual_change": (2, [{"present": ["F_197"]}, {"present": ["F_266"], **P}]),
    "pregnant_high_blood_pressure": (
        2,
        [{"vitals": {"systolic_mmhg": 160}, **P}, {"vitals": {"diastolic_mmhg": 110}, **P}] + [{"present": ["F_090", "F_191"]}],
    ),
    "pregnant_active_labour": (2, [{"present": ["F_194"]}]),
    "pregnant_trauma": (
        2,
        [{"present": [f"F_{injury}"], **P} for injury in (221, 222, 223, 226, 227, 228, 229, 233, 234, 235)],
    ),
    # red, children
    "cold_extremities": (1, [{"present": ["F_023"]}]),
    "two_of_severe_dehydration": (
        2,
        [
            {"present": ["F_022", "F_019"]},
            {"present": ["F_020", "F_021"]},
            {"present": ["F_019", "F_129"]},
            {"present": ["F_019", "F_205"]},
        ],
    ),
    "child_brain_infection": (
        2,
        [
            {"present": ["F_144", "F_142"]},
            {"present": ["F_022", "F_001"]},
            {"vitals": {"consciousness": "V", "temperature_celsius": 35.9}},
        ],
    ),
    "under_8_days": (2, [{"age_years": 0}, {"age_years": 7.9 * DAY}]),
    "under_2_months_temperature": (
        2,
        [
            {"age_years": 59 * DAY, "vitals": {"temperature_celsius": 39.1}},
            {"age_years": 9 * DAY, "vitals": {"temperature_celsius": 35.9}},
            {"age_years": 30 * DAY, "present": ["F_001"]},
            {"age_years": 30 * DAY, "present": ["F_206"]},
        ],
    ),
    "child_testicular_pain": (2, [{"present": ["F_182"]}]),
    # yellow, both tables
    "mouth_throat_neck_swelling": (3, [{"present": ["F_071"]}, {"present": ["F_305"]}]),
    "wheeze": (3, [{"present": ["F_059"]}]),
    "vomits_everything_or_diarrhoea": (3, [{"present": ["F_111"]}, {"present": ["F_115"]}]),
    "unable_to_feed_or_drink": (3, [{"present": ["F_129"]}, {"present": ["F_072"]}, {"present": ["F_205"]}]),
    "severe_pallor": (3, [{"present": ["F_026"]}]),
    "ongoing_bleeding": (3, [{"present": ["F_225"]}, {"present": ["F_112"]}]),
    "recent_fainting": (3, [{"present": ["F_087"]}]),
    "altered_mental_status_or_agitation": (
        3,
        [{"present": ["F_144"]}, {"present": ["F_022"]}] + [{"vitals": {"consciousness": letter}} for letter in "CVPU"],
    ),
    "acute_general_weakness": (3, [{"present": ["F_008"]}]),
    "acute_focal_neurological_complaint": (
        3,
        [{"present": [code]} for code in ("F_149", "F_150", "F_151", "F_153", "F_219")],
    ),
    "acute_visual_disturbance": (3, [{"present": ["F_266"]}]),
    "severe_pain": (3, [{"present": [code]} for code in ("F_015", "F_106", "F_138", "F_139")]),
    "rash_worsening_or_peeling": (3, [{"present": ["F_284"]}]),
    "limb_deformity": (3, [{"present": ["F_227"]}]),
    "open_fracture": (3, [{"present": ["F_228"]}]),
    "suspected_dislocation": (3, [{"present": ["F_229"]}]),
    "other_trauma_or_burn": (
        3,
        [{"present": [code]} for code in ("F_222", "F_223", "F_233", "F_235", "F_268")],
    ),
    "needs_urgent_surgery": (3, [{"present": ["F_259"]}]),
    "sexual_assault": (3, [{"present": ["F_203"]}]),
    "unable_to_pass_urine": (3, [{"present": ["F_178"]}]),
    "exposure_needing_prophylaxis": (3, [{"present": ["F_249"]}, {"present": ["F_250"]}]),
    "pregnancy_complication": (3, [{"present": [code]} for code in ("F_193", "F_195", "F_196")]),
    "testicular_pain": (3, [{"present": ["F_182"]}]),
    # yellow, children
    "8_days_to_6_months": (3, [{"age_years": 8 * DAY}, {"age_years": 0.49}]),
    "dehydration": (3, [{"present": [code]} for code in ("F_019", "F_020", "F_021")]),
    "malnutrition": (3, [{"present": [code]} for code in ("F_036", "F_037", "F_038")]),
    "child_pregnancy": (3, [{"present": ["F_191"]}, P]),
    "child_headache": (3, [{"present": ["F_137"]}]),
    # high-risk vitals
    "high_risk_temperature": (3, [{"vitals": {"temperature_celsius": value}} for value in (35.9, 39.1)]),
    "high_risk_spo2": (3, [{"vitals": {"spo2_percent": 91}}]),
    "high_risk_consciousness": (3, [{"vitals": {"consciousness": letter}} for letter in "CVPU"]),
    "high_risk_heart_rate": (3, [{"vitals": {"pulse_per_minute": rate}} for rate in (59, 131)]),
    "high_risk_respiratory_rate": (3, [{"vitals": {"respiratory_rate_per_minute": r}} for r in (9, 31)]),
    "high_risk_heart_rate_unknown_age": (3, [{"vitals": {"pulse_per_minute": rate}} for rate in (69, 181)]),
    **{
        f"high_risk_{sign}_{band}": (
            3,
            [{"age_years": age, "vitals": {vital: rate}} for age in ages for rate in rates],
        )
        for sign, vital, band, ages, rates in (
            ("heart_rate", "pulse_per_minute", "under_1", (0.6, 0.99), (89, 181)),
            ("heart_rate", "pulse_per_minute", "1_to_4", (1, 4.9), (79, 161)),
            ("heart_rate", "pulse_per_minute", "5_to_11", (5, 11.9), (69, 141)),
            ("respiratory_rate", "respiratory_rate_per_minute", "under_1", (0.6, 0.99), (24, 51)),
            ("respiratory_rate", "respiratory_rate_per_minute", "1_to_4", (1, 4.9), (19, 41)),
            ("respiratory_rate", "respiratory_rate_per_minute", "5_to_11", (5, 11.9), (9, 31)),
        )
    },
}
ROWS: dict[str, dict[str, Any]] = {row["id"]: row for row in table("iitt.toml")["sign"]}
ONLY_ADULTS = {"testicular_pain", "high_risk_heart_rate", "high_risk_respiratory_rate"}
ADULTS_AND_PREGNANT_CHILDREN = {
    "heart_rate_red",
    "two_of_infection_or_brain",
    "reported_fever_with_brain_sign",
    "chest_or_abdominal_pain_over_50",
    "ecg_ischaemia",
    "violent_or_aggressive",
}
ONLY_CHILDREN = {
    *("cold_extremities", "two_of_severe_dehydration", "child_brain_infection", "child_testicular_pain"),
    *("under_8_days", "under_2_months_temperature", "8_days_to_6_months", "dehydration", "malnutrition"),
    *("child_pregnancy", "child_headache"),
    *(f"high_risk_{rate}_rate_{age}" for rate in ("heart", "respiratory") for age in BANDS),
}
AGES = {"adult": ADULT, "child": CHILD, "unknown": None, "pregnant_child": CHILD}


def groups_of(sign: str) -> set[str]:
    """The ages whose table has the sign, as the published tool has it."""
    if sign in ONLY_CHILDREN:
        return {"child"}
    if sign in ADULTS_AND_PREGNANT_CHILDREN:
        return {"adult", "pregnant_child"}
    if sign.endswith("unknown_age"):
        return {"unknown"}
    return {"adult"} if sign in ONLY_ADULTS else {"adult", "child"}


def told_floor(told: dict[str, Any], age_years: float | None, **more: Any) -> RuleFloor:
    """The floor of an example in `SIGNS`, at its own age where it has one."""
    fields = {"age_years": age_years, **told, **more}
    return floor_of(*fields.pop("present", ()), **fields)


def told_signs() -> list[Any]:
    """Each example of each sign at each age whose table has the sign."""
    return [
        pytest.param(sign, level, told, group, id=f"{sign}-{number}-{group}")
        for sign, (level, examples) in SIGNS.items()
        for number, told in enumerate(examples)
        for group in (["own"] if "age_years" in told else sorted(groups_of(sign)))
    ]


def test_every_sign_of_the_table_is_tested() -> None:
    """The hand-written examples cover the table, sign for sign."""
    assert SIGNS.keys() == ROWS.keys()
    assert {sign: groups_of(sign) for sign in SIGNS} == {sign: set(row["ages"]) for sign, row in ROWS.items()}


@pytest.mark.parametrize(("sign", "level", "told", "group"), told_signs())
def test_every_sign_fires_at_its_age(sign: str, level: int, told: dict[str, Any], group: str) -> None:
    """Each sign fires with its level, its texts and a reason."""
    more = {"pregnant": True} if group == "pregnant_child" else {}
    floor = told_floor(told, AGES.get(group), **more)
    rule = next(rule for rule in floor.fired if rule.id == sign)
    assert (rule.level, rule.text_en, rule.text_ur) == (level, ROWS[sign]["text_en"], ROWS[sign]["text_ur"])
    assert floor.level <= level
    assert rule.because


@pytest.mark.parametrize(
    ("sign", "group"),
    [(sign, group) for sign, group in product(SIGNS, ("adult", "child")) if group not in groups_of(sign) and "age" not in ROWS[sign]],
)
def test_a_sign_stays_in_its_own_table(sign: str, group: str) -> None:
    """What only the other age's table names does not fire."""
    for told in SIGNS[sign][1]:
        assert sign not in ids(told_floor(told, AGES[group]))


@pytest.mark.parametrize("sign", [sign for sign, row in ROWS.items() if {"adult", "child"} & set(row["ages"])])
def test_unknown_age_takes_what_either_table_surely_fires(sign: str) -> None:
    """With the age unknown, a sign fires unless it needs an age of its own."""
    for told in SIGNS[sign][1]:
        floor = told_floor({**told, "age_years": None}, None)
        assert (sign in ids(floor)) == ("age" not in ROWS[sign])


@pytest.mark.parametrize(
    ("fields", "present", "absent"),
    [
        ({"vitals": {"pulse_per_minute": 50}}, "high_risk_heart_rate", "heart_rate_red"),
        ({"vitals": {"pulse_per_minute": 150}}, "high_risk_heart_rate", "heart_rate_red"),
        ({"vitals": {"pulse_per_minute": 60}}, None, "high_risk_heart_rate"),
        ({"vitals": {"pulse_per_minute": 130}}, None, "high_risk_heart_rate"),
        ({"vitals": {"respiratory_rate_per_minute": 10}}, None, "high_risk_respiratory_rate"),
        ({"vitals": {"respiratory_rate_per_minute": 30}}, None, "high_risk_respiratory_rate"),
        ({"vitals": {"temperature_celsius": 36.0}}, None, "high_risk_temperature"),
        ({"vitals": {"temperature_celsius": 39.0}}, None, "high_risk_temperature"),
        ({"vitals": {"spo2_percent": 92}}, None, "high_risk_spo2"),
        ({"vitals": {"capillary_refill_seconds": 3}}, None, "slow_capillary_refill"),
        ({"vitals": {"glucose_mg_dl": 70}}, None, "hypoglycaemia"),
        ({"vitals": {"consciousness": "V"}}, "altered_mental_status_or_agitation", "unresponsive"),
        (
            {"vitals": {"systolic_mmhg": 159, "diastolic_mmhg": 109}, **P},
            None,
            "pregnant_high_blood_pressure",
        ),
        ({"vitals": {"systolic_mmhg": 170}}, None, "pregnant_high_blood_pressure"),
        ({"present": ["F_078"], "age_years": 50}, None, "chest_or_abdominal_pain_over_50"),
        ({"present": ["F_233"], "age_years": 70}, "other_trauma_or_burn", "burn_over_70_years"),
        ({"present": ["F_233"], "age_years": 2}, "other_trauma_or_burn", "burn_under_2_years"),
        ({"present": ["F_145"], "age_years": 12}, "active_convulsions", "cold_extremities"),
        ({"present": ["F_019"], "age_years": CHILD}, "dehydration", "two_of_severe_dehydration"),
        ({"age_years": 8 * DAY}, "8_days_to_6_months", "under_8_days"),
        ({"age_years": 0.5}, None, "8_days_to_6_months"),
        ({"age_years": 2 / 12, "present": ["F_001"]}, "8_days_to_6_months", "under_2_months_temperature"),
        ({"present": ["F_194"], "age_years": 11.9}, "pregnant_active_labour", "testicular_pain"),
    ],
)
def test_the_near_side_of_a_boundary_does_not_fire(fields: dict[str, Any], present: str | None, absent: str) -> None:
    """A value at a limit, or one sign where two are needed, fires at most the milder rule."""
    fired = ids(told_floor(fields, ADULT))
    assert absent not in fired
    assert present is None or present in fired


@pytest.mark.parametrize(
    ("age_years", "breaths", "beats"),
    [(0.6, (25, 50), (90, 180)), (1, (20, 40), (80, 160)), (4.9, (20, 40), (80, 160))]
    + [(5, (10, 30), (70, 140)), (11.9, (10, 30), (70, 140))],
)
def test_rates_at_the_limits_of_a_childs_band_are_not_high_risk(age_years: float, breaths: tuple[int, int], beats: tuple[int, int]) -> None:
    """The limits themselves belong to the normal band of each age."""
    for breath, beat in product(breaths, beats):
        vitals = {"respiratory_rate_per_minute": breath, "pulse_per_minute": beat}
        assert floor_of(vitals=vitals, age_years=age_years).fired == ()


@pytest.mark.parametrize("beats", [70, 180])
def test_rates_that_some_child_may_have_are_not_fired_for_an_unknown_age(beats: int) -> None:
    """With the age unknown, a rate that is in range at some age below 12 is no child's sign."""
    floor = floor_of(vitals={"pulse_per_minute": beats}, age_years=None)
    assert "high_risk_heart_rate_unknown_age" not in ids(floor)


@pytest.mark.parametrize(
    ("sign", "part"),
    [
        ("heavy_bleeding_after_birth", {"present": ["F_198", "F_200"]}),
        ("heavy_bleeding_after_birth", {"present": ["F_187"]}),
        ("burn_with_smoke", {"present": ["F_236"]}),
        ("burn_with_smoke", {"present": ["F_233"]}),
        ("two_of_infection_or_brain", {"present": ["F_137", "F_138", "F_139"]}),
        ("reported_fever_with_brain_sign", {"present": ["F_142"], "vitals": {"consciousness": "V"}}),
        ("reported_fever_with_brain_sign", {"present": ["F_001"]}),
        ("pregnant_heavy_bleeding", {"present": ["F_187", "F_224"]}),
        ("pregnant_severe_abdominal_pain", {"present": ["F_106"]}),
        ("pregnant_severe_pain_in_abdomen", {"present": ["F_015", "F_100", "F_189"]}),
        ("pregnant_severe_pain_in_abdomen", {"present": ["F_015"], **P}),
        ("pregnant_severe_pain_in_abdomen", {"present": ["F_100", "F_189"], **P}),
        ("pregnant_seizure_or_altered_mental_status", {"present": ["F_144", "F_145", "F_146"]}),
        ("pregnant_severe_headache", {"present": ["F_138", "F_139"]}),
        ("pregnant_visual_change", {"present": ["F_266"]}),
        ("pregnant_high_blood_pressure", {"present": ["F_090"]}),
        ("pregnant_trauma", {"present": ["F_221", "F_222"]}),
        ("pregnant_trauma", P),
        ("pregnant_active_labour", P),
        ("two_of_severe_dehydration", {"present": ["F_021", "F_129", "F_205"], "age_years": CHILD}),
        ("child_brain_infection", {"present": ["F_001", "F_142"], "age_years": CHILD}),
        ("child_brain_infection", {"present": ["F_022", "F_144"], "age_years": CHILD}),
    ],
)
def test_part_of_a_sign_is_not_the_sign(sign: str, part: dict[str, Any]) -> None:
    """A sign that needs two things, or pregnancy, does not fire on one of them."""
    assert sign not in ids(told_floor(part, ADULT))


@pytest.mark.parametrize(
    ("age_years", "fired"),
    [
        *((0, ["under_8_days"]), (8 * DAY, ["8_days_to_6_months"]), (0.4, ["8_days_to_6_months"])),
        *((age, []) for age in (0.5, 1.5, 3, 7, 12, 16, 30, 51, 71, 100, None)),
    ],
)
def test_age_alone_fires_only_in_the_youngest(age_years: float | None, fired: list[str]) -> None:
    """A patient of whom nothing is told is raised for being under 6 months old, and for no other age."""
    assert ids(floor_of(age_years=age_years)) == fired


def test_adult_and_child_tables_meet_at_twelve_years() -> None:
    """A heart rate of 151 is red from the twelfth birthday and a high-risk vital before it."""
    assert floor_of(vitals={"pulse_per_minute": 151}, age_years=12).level == 2
    assert floor_of(vitals={"pulse_per_minute": 151}, age_years=11.99).level == 3


def test_reported_fever_with_headache_waits_for_a_thermometer() -> None:
    """Fever that nobody measured leaves the sign unknown, and the temperature is named as telling."""
    floor = floor_of("F_001", "F_137")
    assert floor.level == 5
    assert UnknownVital("temperature_celsius", 2) in floor.unknown_vitals
    assert floor_of("F_001", "F_137", vitals={"temperature_celsius": 39.5}).level == 2
    assert floor_of("F_001", "F_137", vitals={"temperature_celsius": 38.5}).level == 5


def test_reasons_and_red_flags_of_a_sick_patient() -> None:
    """Reasons name finding codes and measured values, and red flags are the rules of levels 1 and 2."""
    floor = floor_of("F_078", "F_059", vitals={"pulse_per_minute": 152}, age_years=58)
    assert [(rule.id, rule.table, rule.because) for rule in floor.fired] == [
        ("heart_rate_red", "IITT red", ("pulse_per_minute 152",)),
        ("chest_or_abdominal_pain_over_50", "IITT red", ("F_078", "age_years 58")),
        ("wheeze", "IITT yellow", ("F_059",)),
        ("high_risk_heart_rate", "IITT high-risk vital", ("pulse_per_minute 152",)),
        ("news2_single_3", "NEWS2", ("pulse_per_minute 152",)),
    ]
    assert floor.red_flags == (
        "Heart rate under 50 or over 150",
        "Chest or abdominal pain over 50 years of age",
    )


def test_unmeasured_vitals_are_named_with_what_they_could_reach() -> None:
    """A well adult without glucose and refill is told of both; one who is red hears only of what is worse."""
    known = {name: value for name, value in NORMAL.items() if name not in ("glucose_mg_dl", "diastolic_mmhg")}
    known |= {"capillary_refill_seconds": None}
    assert floor_of(vitals=known).unknown_vitals == (
        UnknownVital("capillary_refill_seconds", 1),
        UnknownVital("glucose_mg_dl", 2),
    )
    assert floor_of("F_245", vitals=known).unknown_vitals == (UnknownVital("capillary_refill_seconds", 1),)
    assert floor_of("F_058", vitals=known).unknown_vitals == ()
    assert UnknownVital("diastolic_mmhg", 2) in floor_of(vitals=known, pregnant=True).unknown_vitals


def test_a_finding_of_unknown_is_not_present() -> None:
    """The word `unknown` in place of a value counts like a missing finding, and `absent` never fires."""
    case = Case(case_id="a", age_years=ADULT)
    assert assess_floor(case, {"F_058": "unknown", "F_143": "absent"}).fired == ()
    assert assess_floor(case, {"F_058": "yes"}).level == 1


def test_roles_of_findings_in_the_iitt_table() -> None:
    """A finding is red or yellow when the tool names it alone, else a component, or not in the table."""
    roles = iitt_signs()
    assert {roles[code] for code in ("F_143", "F_023", "F_234")} == {"red"}
    assert {roles[code] for code in ("F_144", "F_182", "F_036")} == {"yellow"}
    assert {roles[code] for code in ("F_142", "F_137", "F_187", "F_191")} == {"component"}
    assert "F_062" not in roles


def test_tables_say_where_they_come_from_and_who_must_sign() -> None:
    """Both tables carry version, source and the call for a sign-off; every floor carries the versions."""
    for name in ("news2.toml", "iitt.toml"):
        assert table(name)["source"]
        assert table(name)["sign_off"] == "The local clinical lead must sign off this table before use with patients."
        assert table(name)["version"] in floor_of().rule_version


def test_a_table_that_names_an_unknown_component_is_refused() -> None:
    """A typing error in the table stops the start, with the name that is wrong."""
    row = {
        "id": "a",
        "ages": ["adult"],
        "colour": "red",
        "level": 1,
        "any": ["pregnnat"],
        "text_en": "",
        "text_ur": "",
    }
    with pytest.raises(PolicyError) as error:
        IittTable({"adult_from_years": 12, "component": {}, "sign": [row]})
    assert str(error.value) == ("iitt.toml: found 'pregnnat', expected a finding code (F_...) or one of its components: correct the name")


@pytest.mark.parametrize("answers", list(product((True, False, None), repeat=3)))
def test_kleene_at_least(answers: tuple[bool | None, ...]) -> None:
    """`at_least` is true or false exactly when every way to fill in the unknown answers agrees."""
    filled = list(product(*[(True, False) if answer is None else (answer,) for answer in answers]))
    for needed in range(5):
        outcomes = {sum(row) >= needed for row in filled}
        assert at_least(needed, answers) is (outcomes.pop() if len(outcomes) == 1 else None)


# ---- what must hold for any case ----

READINGS: dict[str, list[Any]] = {
    "respiratory_rate_per_minute": [0, 8, 9, 10, 12, 16, 20, 21, 24, 25, 30, 31, 35, 41, 51, 90],
    "spo2_percent": [60, 83, 85, 87, 91, 92, 93, 94, 95, 96, 97, 100],
    "on_oxygen": [False, True],
    "systolic_mmhg": [40, 90, 95, 105, 120, 159, 160, 219, 220, 300],
    "diastolic_mmhg": [20, 75, 109, 110, 200],
    "pulse_per_minute": [0, 40, 49, 55, 65, 75, 80, 85, 95, 100, 115, 131, 141, 151, 161, 181, 300],
    "consciousness": ["A", "C", "V", "P", "U"],
    "temperature_celsius": [30.0, 35.0, 35.9, 36.0, 37.0, 38.1, 39.0, 39.1, 42.0],
    "glucose_mg_dl": [20, 69, 70, 95, 600],
    "capillary_refill_seconds": [0, 2, 3, 3.5, 10],
}
CODES = sorted({*iitt_signs(), "F_043", "F_062"})
SIGN_CODES = [code for code, role in iitt_signs().items() if role != "component"]
ages = st.one_of(st.none(), st.sampled_from([0, 0.02, 0.1, 0.3, 0.8, 3, 7, 11.9, 12, 15, 16, 30, 50, 51, 80]))
vitals_measured = st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in READINGS.items()})
told_findings = st.dictionaries(st.sampled_from(CODES), st.sampled_from(["present", "absent"]), max_size=5)
cases = st.builds(
    Case,
    case_id=st.just("a"),
    age_years=ages,
    pregnant=st.sampled_from([None, True, False]),
    known_hypercapnic_failure=st.sampled_from([None, True, False]),
    vitals=vitals_measured.map(lambda values: Vitals(**values)),
)
any_case = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def with_vital(case: Case, name: str, value: Any) -> Case:
    return case.model_copy(update={"vitals": case.vitals.model_copy(update={name: value})})


def healthy(name: str, case: Case) -> Any:
    """A reading that is normal in every table that counts at this age; danger grows away from it."""
    age = case.age_years
    child = 0 if age is None or age >= 12 else 3 if age < 1 else 2 if age < 5 else 1
    return {
        **NORMAL,
        "respiratory_rate_per_minute": (16, 20, 30, 35)[child],
        "pulse_per_minute": (80, 100, 120, 130)[child],
        "spo2_percent": 92 if case.known_hypercapnic_failure else 100,
    }[name]


def is_worse(name: str, new: Any, old: Any, case: Case) -> bool:
    if name == "consciousness":
        return "ACVPU".index(new) >= "ACVPU".index(old)
    normal = healthy(name, case)
    return bool(new >= old >= normal or new <= old <= normal)


@any_case
@given(case=cases, findings=told_findings, name=st.sampled_from(list(READINGS)), data=st.data())
def test_worsening_a_vital_never_lowers_urgency(case: Case, findings: dict[str, str], name: str, data: st.DataObject) -> None:
    """A vital further from normal gives the same level or a more urgent one."""
    old = data.draw(st.sampled_from(READINGS[name]))
    new = data.draw(st.sampled_from([value for value in READINGS[name] if is_worse(name, value, old, case)] or [old]))
    before = assess_floor(with_vital(case, name, old), findings)
    after = assess_floor(with_vital(case, name, new), findings)
    assert after.level <= before.level


@any_case
@given(case=cases, findings=told_findings, code=st.sampled_from(SIGN_CODES))
def test_adding_a_sign_never_lowers_urgency(case: Case, findings: dict[str, str], code: str) -> None:
    """One more red or yellow sign gives the same level or a more urgent one."""
    assert assess_floor(case, findings | {code: "present"}).level <= assess_floor(case, findings).level


@any_case
@given(case=cases, findings=told_findings, name=st.sampled_from(list(READINGS)))
def test_an_unmeasured_vital_is_neither_normal_nor_abnormal(case: Case, findings: dict[str, str], name: str) -> None:
    """Measuring never lowers urgency, and the worst it can reach is what the floor said beforehand."""
    case = with_vital(case, name, None)
    floor = assess_floor(case, findings)
    levels = [assess_floor(with_vital(case, name, value), findings).level for value in READINGS[name]]
    said = {vital.name: vital.could_reach_level for vital in floor.unknown_vitals}
    assert max(levels) <= floor.level
    assert min(levels) == said.get(name, floor.level)


@any_case
@given(case=cases, findings=told_findings, data=st.data())
def test_news2_bounds_hold_for_every_completion(case: Case, findings: dict[str, str], data: st.DataObject) -> None:
    """However the unknown vitals turn out, the total stays within the bounds, and both bounds can happen."""
    bounds = assess_floor(case, findings).news2
    assume(bounds is not None)
    assert bounds is not None
    worst = {**NORMAL, "respiratory_rate_per_minute": 25, "spo2_percent": 80, "on_oxygen": True}
    worst |= {"systolic_mmhg": 90, "pulse_per_minute": 131, "consciousness": "U", "temperature_celsius": 30.0}
    best = {**NORMAL, "spo2_percent": 92 if case.known_hypercapnic_failure else 100}
    drawn = {name: data.draw(st.sampled_from(values)) for name, values in READINGS.items()}
    totals = []
    for completion in (best, drawn, worst):
        missing = {name: value for name, value in completion.items() if getattr(case.vitals, name) is None}
        complete = case.model_copy(update={"vitals": case.vitals.model_copy(update=missing)})
        news2 = assess_floor(complete, findings).news2
        assert news2 is not None
        assert news2.lower == news2.upper
        totals.append(news2.lower)
    assert (totals[0], totals[2]) == (bounds.lower, bounds.upper)
    assert bounds.lower <= totals[1] <= bounds.upper


@any_case
@given(case=cases, findings=told_findings, age=st.sampled_from([7, 13, 30]))
def test_an_unknown_age_is_never_less_urgent_than_an_ordinary_one(case: Case, findings: dict[str, str], age: float) -> None:
    """Leaving the age out does not lower urgency below that of a patient without an age rule of their own."""
    unknown = assess_floor(case.model_copy(update={"age_years": None}), findings)
    known = assess_floor(case.model_copy(update={"age_years": age}), findings)
    assert unknown.level <= known.level


@any_case
@given(case=cases, findings=told_findings)
def test_the_floor_is_consistent_with_what_fired(case: Case, findings: dict[str, str]) -> None:
    """The level is the most urgent rule's, these come first, and absent is the same as not told."""
    floor = assess_floor(case, findings)
    assert floor.level == min([5, *(rule.level for rule in floor.fired)])
    assert [rule.level for rule in floor.fired] == sorted(rule.level for rule in floor.fired)
    assert len(floor.red_flags) == sum(rule.level <= 2 for rule in floor.fired)
    present = {code: value for code, value in findings.items() if value == "present"}
    assert assess_floor(case, present).fired == floor.fired
    assert assess_floor(case, findings) == floor
