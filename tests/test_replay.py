"""Replaying assessments: the same bits from the same case, alone and in any batch, and a reason for every difference."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from service_app import CASE, MILD, Service, running_service

from inference.case import CaseReading, case_sha256, read_case
from inference.casefile import read_cases
from inference.cli import main
from inference.errors import CaseError, NotFoundError
from inference.models import load_models
from inference.policy import load_policy
from inference.priors import Multiplier, Priors
from inference.replay import Replay, Replayer
from inference.service.replaying import replay_referral
from inference.service.scoring import LATE
from inference.stored_assessments import StoredAssessment, cases_of, differences, read_assessments, stored_assessment
from inference.symptoms import by_severity
from inference.triage import Triage
from training.bench_service import structured_cases

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "data" / "sample"
REFERRALS = SAMPLE / "referrals.jsonl"
NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def triage(models_folder: Path) -> Triage:
    """The shipped models and policy."""
    return Triage(load_models(models_folder))


@pytest.fixture(scope="module")
def replayer(models_folder: Path) -> Replayer:
    """Replays with the shipped bundles."""
    return Replayer(models_folder, load_policy())


@pytest.fixture(scope="module")
def ranked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample referrals, ranked in one batch by the command."""
    out = tmp_path_factory.mktemp("ranked") / "ranked.jsonl"
    assert main(["rank", str(REFERRALS), "--out", str(out), "--now", NOW.isoformat()]) == 1  # three are marked for review
    return out


def case(**fields: Any) -> CaseReading:
    return read_case({"case_id": "a", "age_years": 40, "sex": "male", "complaint": "bukhar aur khansi", **fields}, "a")


def stored(triage: Triage, reading: CaseReading, photos: Path | None = None, **changes: Any) -> StoredAssessment:
    """What `nabz assess --json` prints, with top-level fields changed."""
    plain = json.loads(triage.assess(reading, NOW, photos).model_dump_json())
    return stored_assessment({**plain, **changes}, "x.json")


def test_every_sample_referral_of_one_batch_is_replayed_alone_bit_for_bit(ranked, replayer):
    """Sixteen cases, with photos, set-aside fields and mixed languages: each alone gives the bytes that the batch gave."""
    found = read_assessments(ranked)
    cases = cases_of(found, read_cases(REFERRALS), REFERRALS)
    replays = [replayer.replay(one, reading, SAMPLE) for one, reading in zip(found, cases, strict=True)]
    assert [(one.case_id, one.status, one.differences) for one in replays] == [(one.assessment.case_id, "identical", ()) for one in found]
    assert len(found) == 16 and {one.assessment.rank for one in found} == set(range(1, 17))


def test_a_case_gets_the_same_bits_in_every_batch(triage, catalogue_folder):
    """150 invented cases alone, and in batches of 2, 3, 64 and all at once: not one digit moves."""
    readings = [read_case(raw, "x") for raw in structured_cases(catalogue_folder, 150)]
    alone = [triage.assess(reading, NOW).model_dump_json() for reading in readings]
    for size in (2, 3, 64, 150):
        chunks = [readings[start : start + size] for start in range(0, len(readings), size)]
        together = [one.model_dump_json() for chunk in chunks for one in triage.assess_each(chunk, [NOW] * len(chunk))]
        assert together == alone, size


def test_probability_by_severity_is_a_sum_in_the_conditions_order():
    """Conditions of severities 2, 1, 2: 0.25 + 0.125 belong to severity 2, 0.5 to 1, none to the others."""
    found = by_severity(np.array([[0.25, 0.5, 0.125]], dtype=np.float32), np.array([2, 1, 2]))
    assert found.tolist() == [[0.0, 0.5, 0.375, 0.0, 0.0, 0.0]]


@given(st.integers(1, 80), st.integers(0, 2**32 - 1))
def test_probability_by_severity_does_not_depend_on_the_other_rows(n, seed):
    """Each row of a batch of any size has the bits that it has alone."""
    rng = np.random.default_rng(seed)
    rows, severity = rng.dirichlet(np.full(49, 0.1), n).astype(np.float32), rng.integers(1, 6, 49)
    together = by_severity(rows, severity)
    assert all(by_severity(row[None], severity).tobytes() == together[place].tobytes() for place, row in enumerate(rows))


@pytest.mark.parametrize("vitals", [{}, {"pulse_per_minute": None}, {"pulse_per_minute": None, "on_oxygen": None}])
def test_a_vital_given_as_null_is_a_vital_not_given(triage, vitals):
    """One input hash, one assessment: stored cases leave nulls out, and must still replay."""
    for complaint in ("", "bukhar"):
        expected = triage.assess(case(complaint=complaint), NOW).model_dump_json()
        assert triage.assess(case(complaint=complaint, vitals=vitals), NOW).model_dump_json() == expected


def test_a_changed_field_is_named_with_both_values(triage, replayer):
    """A level that somebody edited is found, and nothing that is known explains it."""
    reading = case()
    was = stored(triage, reading)
    edited = stored_assessment({**was.plain, "level": 5, "not_understood": ["Ali Khan"]}, "x.json")
    found = replayer.replay(edited, reading)
    assert (found.status, found.why) == ("differs", ())
    assert [str(one) for one in found.differences] == [
        f"level: stored 5, now {was.assessment.level}",
        "not_understood.0 differs",
    ]
    assert "Ali" not in json.dumps(found.as_json())


def test_another_case_is_said_to_be_another(triage, replayer):
    """The hash in the provenance tells that the case's file was changed since."""
    was = stored(triage, case())
    found = replayer.replay(was, case(age_years=80))
    then, now = was.assessment.provenance.input_sha256, case_sha256(case(age_years=80).case)
    assert found.status == "differs"
    assert found.why == (f"the case is not the one that was assessed (SHA-256 {now[:16]}…, then {then[:16]}…): find that one",)


def test_another_photo_under_the_same_name_is_named(triage, replayer, tmp_path):
    """The case and its hash are the same; the photo's own hash is not."""
    shutil.copy(SAMPLE / "photos" / "mole.jpg", tmp_path / "a.jpg")
    reading = case(photos=[{"path": "a.jpg"}])
    was = stored(triage, reading, tmp_path)
    assert replayer.replay(was, reading, tmp_path).status == "identical"
    shutil.copy(SAMPLE / "photos" / "pearly_lump.jpg", tmp_path / "a.jpg")
    found = replayer.replay(was, reading, tmp_path)
    sha256 = was.assessment.photos[0].sha256
    assert sha256 and found.why == (f"photo a.jpg is another file than then (SHA-256 {sha256[:16]}…): bring that one back",)


def test_another_policy_and_another_version_are_named(triage, replayer):
    """Both stand in the provenance, and neither could be guessed from the result."""
    was = stored(triage, case())
    provenance = {**was.plain["provenance"], "policy_sha256": "f" * 64, "nabz_version": "0.0.9"}
    found = replayer.replay(stored_assessment({**was.plain, "provenance": provenance}, "x.json"), case())
    assert found.why == (
        f"the policy is another one (SHA-256 {replayer.policy.sha256[:16]}…, then ffffffffffffffff…): name the file of then with --policy",
        f"it was made by nabz 0.0.9, this is {triage._version}: replay it with that version",
    )


def test_an_assessment_from_before_a_field_says_so(triage, replayer):
    """What an older version did not write is listed, and is no mystery."""
    plain = dict(stored(triage, case()).plain)
    del plain["calibration"]
    found = replayer.replay(stored_assessment(plain, "x.json"), case())
    assert found.why == ("it lacks what this version writes (calibration): it was made by code from before that",)


def test_the_rank_and_the_machine_are_kept_as_they_were(triage, replayer):
    """Neither is a result of the case; another machine is noted."""
    was = stored(triage, case())
    provenance = {**was.plain["provenance"], "runtime": "an abacus"}
    found = replayer.replay(stored_assessment({**was.plain, "rank": 7, "provenance": provenance}, "x.json"), case())
    assert found.status == "identical"
    assert found.notes == (f"computed then with an abacus; here with {was.plain['provenance']['runtime']}",)


def test_last_digits_on_another_machine_are_explained(triage, replayer):
    """A difference in the seventh digit is excused by other libraries, and by them alone."""
    was = stored(triage, case())
    changed = {**was.plain, "critical_probability": was.plain["critical_probability"] * (1 + 1e-7)}
    elsewhere = {**changed, "provenance": {**was.plain["provenance"], "runtime": "an abacus"}}
    why = ("only last digits differ, and other libraries or another kind of processor computed it (see the note)",)
    assert replayer.replay(stored_assessment(elsewhere, "x.json"), case()).why == why
    assert replayer.replay(stored_assessment(changed, "x.json"), case()).why == ()


@pytest.mark.parametrize("fault", ["missing", "another"])
def test_a_bundle_that_is_not_here_is_named_with_where_to_look(triage, models_folder, tmp_path, fault):
    """Without the very bytes that scored there is nothing to compare: it could not be replayed."""
    folder = tmp_path / "models"
    shutil.copytree(models_folder, folder)
    was = stored(triage, case())
    name = was.assessment.provenance.bundles["acuity"]
    if fault == "missing":
        shutil.rmtree(folder / "acuity")
        expected = f"{folder}/acuity/{name.version} is not here: bring back the bundle acuity {name.version} with SHA-256"
    else:
        provenance = json.loads(json.dumps(was.plain["provenance"]))
        provenance["bundles"]["acuity"]["sha256"] = "0" * 64
        was = stored_assessment({**was.plain, "provenance": provenance}, "x.json")
        expected = f"{folder}/acuity/{name.version} is another bundle ({name.sha256[:16]}…) than the one that scored (0000000000000000…)"
    found = Replayer(folder, load_policy()).replay(was, case())
    assert found.status == "impossible" and len(found.why) == 1
    assert found.why[0].startswith(expected)


def test_local_priors_must_be_those_of_then(triage, models_folder):
    """An assessment that names priors is replayed with them, and with none or others not at all."""
    sha256 = triage.models.bundles["symptoms"].sha256
    label = triage.models.symptoms.labels[0].name  # type: ignore[union-attr]
    priors = Priors(
        version=triage.models.bundles["symptoms"].version, bundle_sha256=sha256, n=100, method="x", floor_share=0.5, floor_severity=1,
        multipliers={label: Multiplier(value=2.0, low=1.5, high=2.5)}, sha256="a" * 64,
    )  # fmt: skip
    was = stored(Triage(triage.models, None, priors), case())
    assert was.assessment.provenance.priors_sha256 == "a" * 64
    assert Replayer(models_folder, load_policy(), priors).replay(was, case()).status == "identical"
    none = Replayer(models_folder, load_policy()).replay(was, case())
    assert none.why == ("local priors with SHA-256 aaaaaaaaaaaaaaaa… had a part in it, and none were given: name their file with --priors",)
    others = Replayer(models_folder, load_policy(), priors.model_copy(update={"sha256": "b" * 64})).replay(was, case())
    assert (others.status, "the file given has bbbbbbbbbbbbbbbb…" in others.why[0]) == ("impossible", True)


def test_another_way_is_tried_when_one_is_named(triage, replayer):
    """An assessment by the rules alone is reproduced by the rules, and by nothing else."""
    reading = case(vitals={"spo2_percent": 84, "pulse_per_minute": 130})
    was = stored_assessment(json.loads(triage.by_rules([reading], NOW, LATE)[0].model_dump_json()), "x.json")
    assert replayer.replay(was, reading).status == "differs"
    assert replayer.replay(was, reading, others=[lambda one: one.by_rules([reading], NOW, LATE)[0]]).status == "identical"


def test_differences_see_types_missing_keys_and_the_order_of_keys():
    """1 is not 1.0, an absent key is not null, and the same keys in another order are other bytes."""
    found = {one.where: (one.stored, one.now) for one in differences({"a": 1, "b": [1, 2]}, {"a": 1.0, "b": [1], "c": None})}
    assert found == {"a": (1, 1.0), "b.1": (2, "(absent)"), "c": ("(absent)", None)}
    assert [one.where for one in differences({"a": 1, "b": 2}, {"b": 2, "a": 1})] == ["the whole (order of keys)"]
    assert list(differences({"a": [{"b": 0.1}]}, {"a": [{"b": 0.1}]})) == []


def test_cases_with_one_id_are_told_apart_by_their_hash(triage, replayer):
    """Two patients under one case_id: each assessment finds its own."""
    twins = [case(age_years=20), case(age_years=70)]
    found = [stored(triage, one) for one in reversed(twins)]
    assert [one.case.age_years for one in cases_of(found, twins, Path("x.jsonl"))] == [70, 20]
    with pytest.raises(CaseError) as caught:
        cases_of(found, [replace(twins[0], case=twins[0].case.model_copy(update={"case_id": "b"}))], Path("x.jsonl"))
    assert str(caught.value) == "x.jsonl has no case a: name the file that x.json was made from with --case"


def test_the_command_says_what_came_out(ranked, tmp_path, capsys):
    """Exit 0, 1 and 2 for identical, different and impossible; one JSON object an assessment on request."""
    given_ = ["replay", str(ranked), "--case", str(REFERRALS)]
    assert main(given_) == 0
    assert capsys.readouterr() == ("", "nabz: 16 identical, 0 differ, 0 could not be replayed\n")
    lines = ranked.read_text(encoding="utf-8").splitlines()
    one = tmp_path / "one.json"
    one.write_text(json.dumps({**json.loads(lines[0]), "specialty": "dentistry"}, indent=1), encoding="utf-8")
    assert main(["replay", str(one), "--case", str(REFERRALS)]) == 1
    out = capsys.readouterr().out
    assert re.search(r"one\.json: DIFFERS; symptoms \S+ \([0-9a-f]{12}…\), acuity", out)
    assert 'specialty: stored "dentistry", now "' in out
    assert main(["replay", str(one), "--case", str(REFERRALS), "--json", "--models", str(tmp_path)]) == 2
    shown = json.loads(capsys.readouterr().out)
    assert (shown["status"], shown["case_id"], shown["differences"]) == ("impossible", json.loads(lines[0])["case_id"], [])


def test_the_example_of_the_help_runs(ranked, monkeypatch, capsys):
    """As it stands there, in a folder that has such a file."""
    with pytest.raises(SystemExit):
        main(["replay", "--help"])
    example = re.search(r"example: nabz (replay ranked\.jsonl --case \S+)", capsys.readouterr().out)
    assert example is not None
    words = example[1].split()
    words[1], words[3] = "ranked.jsonl", str(ROOT / words[3])
    monkeypatch.chdir(ranked.parent)
    monkeypatch.setenv("NABZ_MODELS", str(ROOT / "models"))
    assert main(words) == 0


def test_what_is_neither_a_file_nor_a_referral_is_told(capsys):
    """A mistyped name must not end in the service's database."""
    assert main(["replay", "rankd.json"]) == 2
    expected = (
        "nabz: rankd.json cannot be read (FileNotFoundError): name a file that `nabz rank --format json` wrote, or a referral's id (r-…)\n"
    )
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{}", "nabz: FILE is no assessment of this or an earlier version, at: case_id, critical_probability, differential; write it with --format json\n"),
        ('{"a": 1}\n{"b"\n', "nabz: FILE, line 2 is not valid JSON: write it again with `nabz rank --format json`\n"),
        ("", "nabz: FILE holds no assessment: name a file that `nabz rank --format json` or `nabz assess --json` wrote\n"),
    ],
)  # fmt: skip
def test_a_file_that_holds_no_assessments_is_refused(tmp_path, capsys, content, expected):
    """With what is wrong, where, and what writes the right one."""
    file = tmp_path / "x.jsonl"
    file.write_text(content, encoding="utf-8")
    assert main(["replay", str(file), "--case", str(REFERRALS)]) == 2
    assert capsys.readouterr().err == expected.replace("FILE", str(file))


def test_a_file_without_its_cases_says_how_to_name_them(ranked, capsys):
    """Assessments do not hold the case."""
    assert main(["replay", str(ranked)]) == 2
    expected = f"nabz: {ranked} holds assessments without their cases: name the file of cases that it was made from with --case\n"
    assert capsys.readouterr().err == expected


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A running service with the shipped bundles."""
    with running_service(tmp_path_factory.mktemp("service")) as running:
        yield running


def replayed(service: Service, id_: str, version: int | None = None) -> list[Replay]:
    """A referral's assessments, replayed as the command does it."""
    settings = service.parts.settings
    return replay_referral(settings, Replayer(ROOT / "models", load_policy()), id_, version, datetime.now(UTC))


def with_photo(service: Service, raw: dict[str, Any]) -> dict[str, Any]:
    """Send a case with a photo; what was acknowledged."""
    files = [("photos", ("mole.jpg", (SAMPLE / "photos" / "mole.jpg").read_bytes(), "image/jpeg"))]
    answer = service.client.post("/v1/referrals", data={"case": json.dumps(raw)}, files=files, headers=service.token("clinic"))
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def test_what_the_service_stored_is_replayed_bit_for_bit(service):
    """Plain cases, one with nulls, one with a late and one with a broken field, and one with a photo, which it keeps re-encoded."""
    late = (datetime.now(UTC) - timedelta(days=2)).isoformat()
    raws = [CASE, MILD, {"vitals": {"pulse_per_minute": None}}, {**CASE, "received_at": late}, {**CASE, "age_years": -3, "colour": "x"}]
    ids = [service.send(raw)["id"] for raw in raws] + [with_photo(service, MILD)["id"]]
    found = [one for id_ in ids for one in replayed(service, id_)]
    assert [(one.status, one.differences) for one in found] == [("identical", ())] * len(ids)
    assert found[-1].name == f"{ids[-1]}, assessment 1"


def test_every_assessment_of_a_referral_is_replayed_also_after_an_override(service):
    """A worse vital after a clinician's override raises the level with a reason of its own, which the replay gives too."""
    id_ = with_photo(service, MILD)["id"]
    service.act(id_, "override", {"level": 5, "reason": "calm"})
    worse = {"vitals": {"spo2_percent": 80, "respiratory_rate_per_minute": 36}}
    answer = service.client.post(f"/v1/referrals/{id_}/findings", json=worse, headers=service.token("clinic"))
    assert "raised again" in answer.json()["assessment"]["review"]["why"][-1]
    assert [(one.name, one.status) for one in replayed(service, id_)] == [
        (f"{id_}, assessment 1", "identical"), (f"{id_}, assessment 2", "identical"),
    ]  # fmt: skip
    assert [one.name for one in replayed(service, id_, 2)] == [f"{id_}, assessment 2"]


def test_a_case_that_came_while_the_models_were_late_is_replayed_by_the_rules(service, monkeypatch):
    """That they were late cannot be repeated; what the rules then said can, with the reason that the service gave."""

    async def nothing(given_: Any) -> None:
        return None

    monkeypatch.setattr(service.parts.scorer._models, "put", nothing)
    answer = service.send(CASE)
    assert answer["scored_by"] == "rules alone" and answer["assessment"]["review"]["why"] == [LATE]
    assert [one.status for one in replayed(service, answer["id"])] == ["identical"]


def test_a_replay_stands_in_the_audit_trail(service):
    """As a read by the operator, with the versions that were looked at."""
    id_ = service.send()["id"]
    replayed(service, id_)
    rows = service.client.get("/v1/audit", params={"referral": id_}, headers=service.token("admin")).json()
    assert [(row["action"], row["actor"].split(":")[0], row["detail"]) for row in rows if row["action"] == "replayed_assessment"] == [
        ("replayed_assessment", "os", {"versions": [1]})
    ]


def test_a_photo_that_was_lost_is_the_reason_that_is_given(service):
    """The stored photo is gone: the replay differs, and says which photo to restore."""
    id_ = with_photo(service, {**MILD, "case_id": "lost"})["id"]
    sha256 = service.client.get(f"/v1/referrals/{id_}", headers=service.token("clinic")).json()["photos"][0]["sha256"]
    file = service.parts.settings.photos / sha256[:2] / f"{sha256[2:]}.sealed"
    content = file.read_bytes()
    file.unlink()
    found = replayed(service, id_)[0]
    file.write_bytes(content)
    assert found.status == "differs"
    assert found.why[0] == f"the stored photo {sha256[:16]}… cannot be used (there is no such photo): restore it from a backup"


def test_an_unknown_referral_or_version_is_said_to_be_unknown(service):
    """In the service's own words."""
    with pytest.raises(NotFoundError):
        replayed(service, "r-nothing")
    with pytest.raises(NotFoundError) as caught:
        replayed(service, service.send()["id"], 9)
    assert str(caught.value) == "the referral has no assessment 9: leave --version out to replay all that it has"


def test_the_command_replays_a_referral_by_its_id(service, monkeypatch, capsys):
    """With the settings that the service has."""
    settings = service.parts.settings
    monkeypatch.setenv("NABZ_DATABASE_URL", settings.database_url)
    monkeypatch.setenv("NABZ_DATA_DIR", str(settings.data_dir))
    id_ = service.send()["id"]
    assert main(["replay", id_, "--version", "1"]) == 0
    assert f"{id_}, assessment 1: identical; symptoms " in capsys.readouterr().out
