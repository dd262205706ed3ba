"""What is counted: closed sets of labels, names with units, and no word of a patient's."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families
from queue_database import ASMA, CLINIC, POLICY, started

from inference.case import read_case
from inference.models import Models
from inference.policy import load_policy
from inference.service import scoring, telemetry
from inference.service.photo_store import PhotoStore
from inference.service.referrals import Referrals, Submission
from inference.service.telemetry import REVIEW_KINDS, Telemetry, review_kind
from inference.service.unscored import WHY, unscored
from inference.service.vault import Vault
from inference.triage import Triage

NOW = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)


def series(one: Telemetry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Everything rendered, read back with Prometheus' own parser."""
    content, kind = one.render()
    assert kind.startswith("text/plain")
    families = text_string_to_metric_families(content.decode())
    return {(it.name, tuple(sorted(it.labels.items()))): it.value for family in families for it in family.samples}


def test_requests_are_counted_by_template_and_status():
    """Count, status and time of a route; the time in seconds."""
    one = Telemetry()
    one.observe_http("POST", "/v1/assess", 200, 0.004)
    one.observe_http("POST", "/v1/assess", 200, 0.2)
    one.observe_http("POST", "/v1/assess", 503, 0.1)
    seen = series(one)
    route = (("method", "POST"), ("route", "/v1/assess"))
    assert seen["nabz_http_requests_total", (*route, ("status", "200"))] == 2
    assert seen["nabz_http_requests_total", (*route, ("status", "503"))] == 1
    assert seen["nabz_http_request_seconds_count", route] == 3
    assert seen["nabz_http_request_seconds_bucket", (("le", "0.005"), *route)] == 1


def test_labels_are_bounded():
    """Methods, routes and states from outside the closed sets are "other", however many come."""
    one = Telemetry()
    for number in range(1000):
        one.observe_http(f"M{number}", f"/x/{number}", 404, 0.001)
    one.set_queue({(1, "lost"): 1}, {}, {})
    labels = {label for name, label in series(one) if name == "nabz_http_requests_total"}
    assert {dict(label)["method"] for label in labels} == {"other"}
    assert len({dict(label)["route"] for label in labels}) == telemetry._ROUTE_LIMIT + 1
    assert len(one._children) == 0
    assert series(one)["nabz_queue_referrals", (("level", "1"), ("state", "other"))] == 1


def test_models_waits_overrides_audit_and_outbox():
    """Each explicit method moves its own series."""
    one = Telemetry()
    one.observe_model("acuity", 0.002, 16)
    one.observe_wait(2, 0.6)
    for before, after in ((3, 1), (3, 2), (2, 4), (4, 4)):
        one.count_override(before, after)
    one.count_audit_rows(3)
    one.set_outbox_lag(7)
    one.set_queue({(3, "waiting"): 5, (3, "claimed"): 2}, {3: 60.0}, {3: 1})
    seen = series(one)
    assert seen["nabz_model_seconds_count", (("task", "acuity"),)] == 1
    assert seen["nabz_model_batch_cases_sum", (("task", "acuity"),)] == 16
    assert seen["nabz_wait_cap_ratio_bucket", (("le", "0.75"), ("level", "2"))] == 1
    assert seen["nabz_wait_cap_ratio_bucket", (("le", "0.5"), ("level", "2"))] == 0
    assert [seen["nabz_overrides_total", (("direction", it),)] for it in ("more_urgent", "less_urgent", "same")] == [2, 1, 1]
    assert (seen["nabz_audit_rows_total", ()], seen["nabz_outbox_lag_events", ()]) == (3, 7)
    assert seen["nabz_queue_referrals", (("level", "3"), ("state", "waiting"))] == 5
    assert seen["nabz_queue_oldest_seconds", (("level", "3"),)] == 60
    assert seen["nabz_queue_past_cap_referrals", (("level", "3"),)] == 1


def test_a_queue_that_empties_is_zero():
    """Levels that nobody waits at any more fall back to zero."""
    one = Telemetry()
    one.set_queue({(1, "waiting"): 1}, {1: 9.0}, {1: 1})
    one.set_queue({(1, "waiting"): 0}, {}, {})
    seen = series(one)
    assert seen["nabz_queue_oldest_seconds", (("level", "1"),)] == seen["nabz_queue_past_cap_referrals", (("level", "1"),)] == 0


def test_degraded_is_asked_when_read():
    """The gauge says what is so at the time of the reading."""
    one, states = Telemetry(), [True, False]
    one.set_degraded_by(lambda: states.pop(0))
    assert [series(one)["nabz_degraded", ()] for _ in range(2)] == [1, 0]


def test_review_reasons_are_counted_by_kind_and_by_what_scored():
    """One case counts once a kind; the reasons' words are in no metric."""
    one = Telemetry()
    reading = read_case({"case_id": "Bakhsh 35202-1234567-1", "seena": 1, "dard": 2, "complaint": "seena"}, "x")
    one.count_review(unscored(reading, NOW, load_policy()))
    seen = series(one)
    counted = {labels[0][1]: value for (name, labels), value in seen.items() if name == "nabz_review_reasons_total" and value}
    assert counted == {"field_set_aside": 1, "nothing_scored": 1}
    assert seen["nabz_assessments_total", (("scored_by", "nothing"),)] == 1
    text = one.render()[0].decode()
    assert "Bakhsh" not in text and "seena" not in text and "35202" not in text


class Ranked:
    """A scorer that ranks every case alike."""

    async def assess(self, reading, now, _photos):
        return unscored(reading, now, POLICY)


def test_an_answer_that_is_given_again_and_a_lease_that_is_renewed_count_once(queue_url, tmp_path):
    """One case was stored, and one wait ended; a claim after the lease has ended is another wait."""
    one, now = Telemetry(), [NOW]
    database, vault = started(queue_url), Vault.open(tmp_path / "keys.json", create=True)
    cases = Referrals(database, vault, Ranked(), POLICY, PhotoStore(tmp_path / "photos", vault), one, clock=lambda: now[0])

    async def main() -> None:
        for _ in range(3):
            stored = await cases.submit(CLINIC, Submission({"complaint": "bukhar"}), "key", b"body")
        for _ in range(3):
            await cases.claim(ASMA, stored.row["id"])
        assert series(one)["nabz_wait_cap_ratio_count", (("level", "3"),)] == 1
        now[0] += POLICY.queue.lease + timedelta(seconds=1)
        await cases.claim(ASMA, stored.row["id"])

    asyncio.run(main())
    database.stop()
    seen = series(one)
    assert seen["nabz_assessments_total", (("scored_by", "nothing"),)] == 1
    assert seen["nabz_review_reasons_total", (("kind", "nothing_scored"),)] == 1
    assert seen["nabz_wait_cap_ratio_count", (("level", "3"),)] == 2


@pytest.mark.parametrize(
    ("why", "kind"),
    [
        (scoring.LATE, "models_late"),
        (scoring.LOADING, "models_loading"),
        (scoring.FAILED, "scoring_failed"),
        (WHY, "nothing_scored"),
        ("the acuity model failed on this case: ranked without its risk", "scoring_failed"),
        ("photo a.jpg was not scored, because the lesion model is not in use", "photo_not_scored"),
        ("photo not kept: a.jpg: the file is broken", "photo_not_scored"),
        ("photo a.jpg: too dark; take it again in daylight", "photo_quality"),
        ("received_at lies in the future: the time of arrival here was used", "time_of_arrival"),
        ("something that nobody has thought of", "other"),
    ],
)
def test_reasons_have_kinds(why, kind):
    """A reason is told by the words of its maker."""
    assert review_kind(why) == kind


def test_every_reason_that_a_triage_gives_has_a_kind():
    """What the reader of cases and a triage without models say is never "other"."""
    raw = [
        {"complaint": "pain", "vitals": {"spo2_percent": 300}, "photos": [{"path": "a.jpg"}]}, {}, "no case", {"complaint": "x" * 30_000},
        {"case_id": "a", "age": 3},
    ]  # fmt: skip
    triage = Triage(Models(None, None, None, {}, ()))
    found = [why for one in triage.rank([read_case(it, "x") for it in raw], NOW) for why in one.review.why]
    kinds = {review_kind(why) for why in found}
    assert kinds == {"field_set_aside", "complaint_not_read", "photo_not_scored", "nothing_given"}


def test_kinds_and_names_are_well_formed():
    """Kinds are few and differ; names say their unit or what they count."""
    kinds = [kind for kind, _ in REVIEW_KINDS]
    assert len(set(kinds)) == len(kinds) <= 20
    names = {family.name for family in Telemetry().registry.collect()}
    units = (
        "_seconds",
        "_cases",
        "_ratio",
        "_referrals",
        "_events",
        "_rows",
        "_reasons",
        "_requests",
        "_overrides",
        "_assessments",
        "_degraded",
        "_psi",
        "_alarms",
    )
    assert all(name.startswith("nabz_") and name.endswith(units) for name in names)
