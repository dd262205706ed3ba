"""Stored referrals as a training set: what leaves, under which label, and what never does."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from referral_history import finish
from service_app import Service, running_service, settings_for

from inference.case import Case
from inference.casefile import read_cases
from inference.errors import StorageError
from inference.service.audit import verify_in_pages
from inference.service.callers import Who
from inference.service.database import read
from inference.service.export import CARD, CASES, CHECKSUMS, Wanted, export_referrals
from inference.service.export_deidentify import Vocabulary, deidentified
from inference.service.export_labels import Happened, labels_of
from inference.service.export_small_cells import K, Person, age_band, coarsened
from training.labelled_cases import read_labelled_cases

KNOWN = Vocabulary({"F_001": frozenset(), "F_101": frozenset({"flank", "all_over"})}, {"badin": "sindh"}, frozenset({"arm"}))
PHOTO = Path(__file__).parent.parent / "data/sample/photos/mole.jpg"
NAMES = ("Planted-Name", "planted-clinic", "clinician-7", "0300-PLANTED", "Goth Planted", "planted-note")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose clinicians did one thing of each kind; every planted word must stay in it."""
    with running_service(tmp_path_factory.mktemp("exported")) as running:
        yield running


@pytest.fixture(scope="module")
def exported(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five completed referrals (overridden, agreed, accepted, with an outcome, with a photo), one open and one erased one."""
    case = {
        "case_id": "Planted-Name", "age_years": 94.6, "sex": "female", "complaint": "Planted-Name, seenay mein dard, 0300-PLANTED",
        "vitals": {"pulse_per_minute": 118}, "district": "Tharparkar", "findings": {"X_1": "Planted-Name", "F_001": "present"},
        "patient": {"name": "Planted-Name", "phone": "0300-PLANTED"},
    }  # fmt: skip
    ids = [service.send({**case, "district": "Goth Planted" if n == 3 else "Tharparkar"}, "planted-clinic")["id"] for n in range(6)]
    doctor = Who("clinician-7", "clinician")
    service.client.portal.call(service.parts.referrals.impression, doctor, ids[0], 3)
    service.act(ids[0], "override", {"level": 1, "reason": "planted-note"}, "7")
    service.client.portal.call(service.parts.referrals.agree, doctor, ids[1])
    finish(service, ids[0], 7)
    finish(service, ids[1], 7, note="planted-note")
    finish(service, ids[2], 7)
    finish(service, ids[3], 7, outcome="died", final_level=1)
    finish(service, ids[5], 7)
    service.client.post(f"/v1/referrals/{ids[5]}/erase", headers=service.token("admin"))
    parts = [("photos", ("Planted-Name.jpg", PHOTO.read_bytes(), "image/jpeg"))]
    pictured = service.client.post("/v1/referrals", data={"case": json.dumps(case)}, files=parts, headers=service.token("clinic"))
    finish(service, pictured.json()["id"], 7)
    folder = tmp_path_factory.mktemp("out") / "export"
    export_referrals(service.parts.settings, folder, Wanted(with_photos=True), datetime.now(UTC))
    return folder


def by_source(folder: Path) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for line in (folder / CASES).read_text(encoding="utf-8").splitlines():
        found.setdefault(json.loads(line)["labels"]["level_source"], []).append(json.loads(line))
    return found


def test_each_completed_referral_leaves_with_its_final_level_and_whose_it_is(exported: Path):
    """An override, an agreement, a level given afterwards and silence are told apart; what is open or erased stays."""
    cases = by_source(exported)
    assert {source: len(found) for source, found in cases.items()} == {"override": 1, "agreed": 1, "accepted": 2, "outcome": 1}
    overridden = cases["override"][0]["labels"]
    assert (overridden["level"], overridden["machine_level"], overridden["first_impression"]) == (1, 2, 3)
    assert (cases["outcome"][0]["labels"]["level"], cases["outcome"][0]["labels"]["outcome"]) == (1, "died")
    card = json.loads((exported / CARD).read_text(encoding="utf-8"))
    assert card["left_out"] == {"still open": 1, "erased": 1, "due for erasure by the retention policy": 0}
    assert card["overridden_by_machine_level"]["2"] == {"n": 5, "raised": 1, "lowered": 0, "nobody_said": 2}


def test_no_planted_word_leaves(exported: Path, service: Service):
    """Names, phone numbers, clinics, clinicians, notes, unknown findings and villages are in no file; nor is a referral's id."""
    ids = service.parts.database.run_now(lambda unit: [row[0] for row in unit.connection.exec_driver_sql("select id from referrals")])
    for path in exported.rglob("*"):
        content = path.name.encode() + (path.read_bytes() if path.is_file() else b"")
        assert not [word for word in (*NAMES, *ids) if word.encode() in content]


def test_what_leaves_can_be_ranked_and_read_with_its_labels(exported: Path):
    """The same file is a case file without a problem, and a file of labelled cases."""
    readings = read_cases(exported / CASES)
    assert [problem for reading in readings for problem in reading.problems] == []
    labelled = read_labelled_cases(exported)
    assert [one.case for one in labelled] == [reading.case for reading in readings]
    assert {one.case.age_years for one in labelled} == {90}
    assert {(one.case.received_at.day, one.case.received_at.hour) for one in labelled} == {(15, 12)}
    assert all(one.case.findings["F_001"] == "present" for one in labelled)


def test_photos_leave_as_pixels_under_the_cases_name(exported: Path):
    """Each photo that a case names is there, without metadata."""
    named = [photo.path for one in read_labelled_cases(exported) for photo in one.case.photos]
    assert len(named) == 1
    content = (exported / "photos" / named[0]).read_bytes()
    with Image.open(io.BytesIO(content)) as image:
        assert not image.getexif() and "exif" not in image.info


def test_checksums_hold_and_nobody_else_may_read(exported: Path):
    """SHA256SUMS is what `sha256sum --check` reads; files and folder are the owner's alone."""
    lines = [line.split("  ") for line in (exported / CHECKSUMS).read_text(encoding="utf-8").splitlines()]
    assert all(hashlib.sha256((exported / name).read_bytes()).hexdigest() == found for found, name in lines)
    assert {name for _, name in lines} == {str(path.relative_to(exported)) for path in exported.rglob("*") if path.is_file()} - {CHECKSUMS}
    assert {oct(path.stat().st_mode & 0o077) for path in (exported, *exported.rglob("*"))} == {"0o0"}


def test_the_export_is_in_the_audit_trail_with_every_referral(exported: Path, service: Service):
    """Who exported, how many, the file's hash; then the ids. The chain stays whole."""
    trail = service.client.get("/v1/audit", headers=service.token("admin")).json()
    last = [row for row in trail if row["action"].startswith("exported")]
    details = [row["detail"] if isinstance(row["detail"], dict) else json.loads(row["detail"]) for row in last]
    whole = next(one for one in details if "sha256" in one)
    assert (whole["n"], whole["photos"], whole["sha256"]) == (5, 1, hashlib.sha256((exported / CASES).read_bytes()).hexdigest())
    assert sum(len(one.get("referrals", ())) for one in details) == 5
    engine, key = service.parts.database.engine, service.parts.vault.mac_key("audit")
    assert verify_in_pages(lambda work: read(engine, work), key).first_bad is None


def test_a_period_and_the_retention_policy_bound_what_leaves(service: Service, exported: Path, tmp_path: Path):
    """Nothing was completed before yesterday; what the policy is about to erase does not leave either."""
    now = datetime.now(UTC)
    with pytest.raises(StorageError) as nothing:
        export_referrals(service.parts.settings, tmp_path / "a", Wanted(until=now - timedelta(days=1)), now)
    assert str(nothing.value) == "no completed referral is in this period: choose another one with --since and --until"
    short = settings_for(Path(service.parts.settings.data_dir).parent, retention_days=1)
    with pytest.raises(StorageError):
        export_referrals(short, tmp_path / "a", Wanted(), now + timedelta(days=2))
    assert not (tmp_path / "a").exists()


def test_a_folder_with_something_in_it_is_refused(service: Service, exported: Path):
    """An older export is not mixed with a newer one."""
    with pytest.raises(StorageError) as full:
        export_referrals(service.parts.settings, exported, Wanted(), datetime.now(UTC))
    assert str(full.value) == f"{exported} is not empty: name a new folder for this export"


def test_complaints_leave_only_when_asked_for_and_pseudonyms_stay_the_same(service: Service, exported: Path, tmp_path: Path):
    """The same referral has the same id in both exports, so that they can be compared by who made them."""
    card = export_referrals(service.parts.settings, tmp_path / "b", Wanted(with_complaints=True), datetime.now(UTC))
    first, second = read_labelled_cases(exported), read_labelled_cases(tmp_path / "b")
    assert [one.case.case_id for one in first] == [one.case.case_id for one in second]
    assert not any(one.case.complaint for one in first) and all(one.case.complaint for one in second)
    assert "Free text can name anybody" in card["privacy"]["says"][-1]
    assert not any(one.case.photos for one in second)


@pytest.mark.parametrize(
    ("override", "happened", "source"),
    [
        (None, [], "accepted"),
        (None, ["agreed"], "agreed"),
        (None, ["agreed", "reassessed"], "accepted"),
        (None, ["reassessed", "agreed"], "agreed"),
        (2, ["agreed", "overridden"], "override"),
        (2, ["overridden", "agreed"], "override"),
    ],
)
def test_an_agreement_counts_only_with_the_level_that_it_was_about(override: int | None, happened: list[str], source: str):
    """A level that moved afterwards is not the one that was agreed with."""
    levels = [Happened(kind, 3, 2 if kind != "agreed" else 3, {}) for kind in happened]
    assert labels_of(2, 3, override, levels)["level_source"] == source


@pytest.mark.parametrize(
    ("given_years", "years"), [(None, None), (0.01, None), (0.9, 0.83), (1.999, 1.92), (2.7, 2.0), (58.4, 58.0), (97, 90.0)]
)
def test_ages_are_whole_years_or_months(given_years: float | None, years: float | None):
    """Months below two years, 90 for everybody older."""
    case = deidentified(Case(case_id="a", age_years=given_years), {}, {}, KNOWN, with_complaint=False)
    assert case.get("age_years") == (0.0 if given_years == 0.01 else years)


def test_only_known_codes_values_districts_and_sites_leave():
    """A value, a district or a site that the catalogue does not know may be anything; a given answer goes before a read one."""
    case = Case.model_validate(
        {
            "case_id": "Ali", "findings": {"F_101": ["flank", "Ali's side"], "F_001": "absent", "name": "Ali"},
            "district": " BADIN ", "province": "Ali", "photos": [{"path": "Ali.jpg", "body_site": "Ali"}, {"path": "b.jpg", "body_site": "Arm"}],
        }
    )  # fmt: skip
    safe = deidentified(case, {"F_001": "present"}, {"Ali.jpg": "1.jpg", "b.jpg": "2.jpg"}, KNOWN, with_complaint=False)
    assert safe == {
        "sex": "unknown", "findings": {"F_001": "absent", "F_101": "flank"}, "district": "badin", "province": "sindh",
        "photos": [{"path": "1.jpg"}, {"path": "2.jpg", "body_site": "arm"}],
    }  # fmt: skip


PEOPLE = st.lists(
    st.builds(
        Person, st.sampled_from([None, 0.5, 30.0, 50.0]), st.sampled_from(["female", "male"]), st.sampled_from([None, "badin", "dadu"]), st.just("sindh")
    )
)  # fmt: skip


@given(PEOPLE)
def test_no_place_leaves_with_fewer_than_five_alike(people: list[Person]):
    """Every district or province that stays is shared by at least five of the age band and sex; nobody else's place is touched."""
    done = coarsened(people)
    cells = Counter((age_band(p.age_years), p.sex, p.district, p.province) for p in done.people)
    assert all(n >= K for (_, _, district, province), n in cells.items() if district or province)
    assert [(p.age_years, p.sex) for p in done.people] == [(p.age_years, p.sex) for p in people]
    assert done.without_district == sum(a.district != b.district for a, b in zip(people, done.people, strict=True))
    assert done.still_small == sum(n for n in cells.values() if n < K)
