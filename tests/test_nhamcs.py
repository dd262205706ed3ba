"""Reading NHAMCS visits: units, missing marks, and reasons for visit to complaint groups."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inference.acuity import AcuityEncoder
from inference.case import Vitals
from inference.errors import DataError
from training.nhamcs import COLUMNS, encode, encode_with_loss, load_groups, missing_vitals, read_visits

ROOT = Path(__file__).resolve().parent.parent
GROUPS = ROOT / "data/catalogue/complaint_groups.toml"


def _file(folder: Path, *rows: str) -> Path:
    path = folder / "visits.csv"
    path.write_text("\n".join((",".join(COLUMNS), *rows)) + "\n")
    return path


def test_values_get_units_and_negative_numbers_are_missing(tmp_path):
    """98.6 Fahrenheit is 37.0 Celsius; -9 is missing, and so is 998, which marks a pulse that was felt, not counted."""
    path = _file(tmp_path, "2019,40,1,1,986,998,120,-9,18,97,10501,0,2,1", "2016,3,2,-8,-9,100,-9,-9,-9,-9,-9,2,-9,0")
    visits = read_visits(path, load_groups(GROUPS))
    first, second = visits.visits
    assert first.vitals == Vitals.model_construct(
        None, temperature_celsius=37.0, systolic_mmhg=120.0, respiratory_rate_per_minute=18.0, spo2_percent=97.0
    )
    assert (first.sex, first.by_ambulance, first.chronic, first.groups) == ("female", True, 2, ("chest_pain",))
    assert (second.sex, second.by_ambulance, second.chronic, second.groups) == ("male", None, None, ())
    assert visits.is_critical.tolist() == [1, 0]
    assert visits.of_years(2018, 2019).year.tolist() == [2019]


@pytest.mark.parametrize(
    ("code", "groups"),
    [
        (10501, ("chest_pain",)),
        (10552, ("flank_pain",)),
        (14150, ("breathlessness",)),
        (14501, ("fever", "cough")),
        (11650, ("altered_consciousness", "mental_health")),
        (58201, ("self_harm", "poisoning")),
        (19204, ("weakness_focal",)),
        (48000, ()),
        (-9, ()),
    ],
)
def test_a_reason_for_visit_has_its_groups(code, groups):
    """Codes reach every group whose ranges hold them, and no other."""
    assert set(load_groups(GROUPS).of(code)) == set(groups)


def test_unconscious_on_arrival_is_a_level_of_consciousness():
    """Reason 5840.0 says that the patient was unresponsive; a headache says nothing of it."""
    groups = load_groups(GROUPS)
    assert (groups.level(58400), groups.level(58420), groups.level(12100)) == ("U", "C", None)


def test_a_code_that_is_no_code_is_refused(tmp_path):
    """A range written without its tenth names the file and the code."""
    path = tmp_path / "groups.toml"
    path.write_text('[reason_for_visit]\nfever = ["1010"]\n[consciousness]\n')
    with pytest.raises(DataError) as error:
        load_groups(path)
    assert str(error.value) == f"{path} does not give code ranges by complaint group: '1010' is not a code such as 1050.1"


def test_missing_columns_are_named(tmp_path):
    """A file without its columns is refused by their names."""
    path = tmp_path / "visits.csv"
    path.write_text(",".join(COLUMNS[:-2]) + "\n")
    with pytest.raises(DataError) as error:
        read_visits(path, load_groups(GROUPS))
    assert str(error.value) == (f"{path} lacks the columns TOTCHRON, CRITICAL_CARE: expected the NHAMCS-ED public-use columns")


def test_lossy_rows_keep_no_more_than_was_measured(tmp_path):
    """A row that lost vitals never shows one that the visit did not have, and never says that conditions were asked."""
    path = _file(tmp_path, *["2016,70,2,1,986,120,90,60,-9,90,14150,0,5,1"] * 40)
    visits = read_visits(path, load_groups(GROUPS))
    encoder = AcuityEncoder({"F_050": "breathlessness"}, [])
    full, lossy = encode(visits, encoder), encode_with_loss(visits, encoder, np.random.default_rng(1))
    column = {name: place for place, name in enumerate(encoder.names)}
    assert full.shape == lossy.shape == (40, len(encoder.names))
    assert (lossy[:, column["breaths_unmeasured"]] == 1).all()
    assert (lossy[:, column["strain_adult"]] <= full[:, column["strain_adult"]]).all()
    assert lossy[:, column["chronic_asked"]].sum() == 0
    assert 0 < lossy[:, column["spo2_unmeasured"]].sum() < 40


def test_vitals_go_missing_as_they_do_by_arrival_and_age(tmp_path):
    """Infants of this file lack both pressures together, and adults nothing: no adult's pattern is drawn for an infant."""
    infant, adult = "2016,0,2,2,986,120,-9,-9,30,99,14150,0,0,0", "2016,50,2,2,986,80,120,80,16,99,14150,0,0,0"
    found = missing_vitals(read_visits(_file(tmp_path, *[infant, adult] * 3), load_groups(GROUPS)))
    pressures = frozenset({"systolic_mmhg", "diastolic_mmhg"})
    assert found == {(False, 0): [pressures] * 3, (False, 5): [frozenset()] * 3}


def test_most_real_visits_have_a_group(shared_data):
    """At most one visit in twenty has a reason that no group holds."""
    visits = read_visits(shared_data / "nhamcs_ed/visits.csv.gz", load_groups(GROUPS))
    assert len(visits.visits) == 88_762
    assert sum(not visit.groups for visit in visits.visits) < 0.05 * len(visits.visits)
