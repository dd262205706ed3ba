"""What happens to a referral between its arrival and its end, on both databases, with times that are given."""

from __future__ import annotations

import asyncio
import json
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from queue_database import (
    ASMA,
    BILAL,
    CLINIC,
    CLOCK,
    KEY,
    NOW,
    OTHER_CLINIC,
    POLICY,
    add,
    do,
    in_order,
    opened,
    random_referrals,
    referral,
    rows,
    run_sql,
    started,
)
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from inference.errors import ConflictError, NotFoundError, UnprocessableError
from inference.policy import Policy
from inference.service import store
from inference.service.database import Database, Unit, make_engine
from inference.service.intake import Submission
from inference.service.parts import apply_policy
from inference.service.photo_store import PhotoStore
from inference.service.referrals import Referrals
from inference.service.tables import from_us
from inference.service.telemetry import Telemetry
from inference.service.unscored import unscored
from inference.service.vault import Vault

LEASE = POLICY.queue.lease
SECOND = timedelta(seconds=1)
HELD = "another clinician holds this case"


@pytest.fixture
def engine(queue_url):
    """An empty database of each kind."""
    made = make_engine(queue_url)
    yield made
    made.dispose()


def claim(engine: Engine, id_: str, who=ASMA, now=NOW, policy: Policy = POLICY):
    return do(engine, lambda unit: store.claim(unit, id_, who, policy, now))


def release(engine: Engine, id_: str, who=ASMA, now=NOW):
    return do(engine, lambda unit: store.release(unit, id_, who, now))


def complete(engine: Engine, id_: str, who=ASMA, now=NOW, detail=None):
    return do(engine, lambda unit: store.complete(unit, id_, who, now, detail))


def override(engine: Engine, id_: str, level: int, who=ASMA, now=NOW, detail=b"why"):
    return do(engine, lambda unit: store.override(unit, id_, who, level, POLICY, now, detail))


def reassess(engine: Engine, id_: str, level: int, was_version: int = 1, now=NOW, **given):
    row = do(engine, lambda unit: store.find_referral(unit, id_))
    values = {
        "was_version": was_version, "was_level": row.level, "level": level, "is_worse": level < row.machine_level, "floor_level": 5,
        "district": row.district, "specialty": "general", "scored_by": "models", "needs_review": False,
        "risk": 0.25, "received_at": NOW, "summary": b"summary 2", "content": b"content 2", **given,
    }  # fmt: skip
    return do(engine, lambda unit: store.reassess(unit, id_, store.Reassessment(**values), CLINIC, POLICY, now))


def find(engine: Engine, id_: str = "a"):
    return do(engine, lambda unit: store.find_referral(unit, id_))


def kinds(engine: Engine, id_: str = "a") -> list[str]:
    return [row.kind for row in do(engine, lambda unit: store.history_of(unit, id_))]


def queue_order(engine: Engine) -> list[str]:
    return [
        row[0]
        for row in rows(engine, "SELECT id FROM referrals WHERE is_open = 1 ORDER BY level, on_time, order_us, neg_risk, received_us, id")
    ]


def test_a_new_referral_is_stored_with_assessment_event_audit_row_and_photo_links(engine):
    """What was acknowledged is there in all its parts."""
    add(engine, [referral("a", 2, photos=("f" * 64,), patient=b"who")])
    row = find(engine)
    assert (row.state, row.is_open, row.level, row.machine_level, row.version, row.revision) == ("waiting", 1, 2, 2, 1, 1)
    assert (bytes(row.summary), bytes(row.patient)) == (b"summary a", b"who")
    assert (from_us(row.received_us), from_us(row.cap_us)) == (NOW, NOW + timedelta(minutes=60))
    assert [bytes(one.content) for one in do(engine, lambda unit: store.versions_of(unit, "a"))] == [b"content 1"]
    assert do(engine, lambda unit: bytes(store.latest_version(unit, "a", 1).content)) == b"content 1"
    assert do(engine, lambda unit: (store.has_photo(unit, "a", "f" * 64), store.has_photo(unit, "a", "e" * 64))) == (True, False)
    assert kinds(engine) == ["created"]
    assert rows(engine, "SELECT actor, action, referral_id FROM audit") == [("sender-mithi", "created", "a")]


def test_a_foreign_referral_looks_like_a_missing_one(engine):
    """A clinic cannot learn whether an id exists."""
    add(engine, [referral("a", clinic="umerkot")])
    messages = set()
    for id_ in ("a", "nowhere"):
        with pytest.raises(NotFoundError) as refused:
            do(engine, lambda unit, id_=id_: store.find_referral(unit, id_, "mithi"))
        messages.add(str(refused.value))
    assert len(messages) == 1
    assert do(engine, lambda unit: store.find_referral(unit, "a", "umerkot").id) == "a"


def test_a_claim_is_exclusive_and_the_holder_extends_it(engine):
    """Two clinicians never hold one case."""
    add(engine, [referral("a")])
    assert from_us(claim(engine, "a").lease_us) == NOW + LEASE
    with pytest.raises(ConflictError, match=HELD):
        claim(engine, "a", BILAL, NOW + LEASE)
    again = claim(engine, "a", now=NOW + SECOND)
    assert (again.holder, from_us(again.lease_us)) == ("asma", NOW + SECOND + LEASE)
    assert kinds(engine) == ["created", "claimed", "claimed"]


def test_an_expired_lease_is_for_others_and_its_old_holder_can_do_nothing(engine):
    """Who lost a case by time cannot close it over the head of the one who has it now."""
    add(engine, [referral("a")])
    claim(engine, "a")
    late = NOW + LEASE + SECOND
    for act in (release, complete):
        with pytest.raises(ConflictError, match="you do not hold this case, or your lease has ended: claim it first"):
            act(engine, "a", now=late)
    assert claim(engine, "a", BILAL, late).holder == "bilal"
    for act in (release, complete):
        with pytest.raises(ConflictError, match="you do not hold this case"):
            act(engine, "a", now=late)
    with pytest.raises(ConflictError, match=HELD):
        claim(engine, "a", ASMA, late)


def test_a_claim_of_nothing_and_of_a_completed_case_are_refused(engine):
    """Each with its own words."""
    add(engine, [referral("a")])
    with pytest.raises(NotFoundError, match="there is no referral of that id"):
        claim(engine, "nowhere")
    claim(engine, "a")
    complete(engine, "a")
    with pytest.raises(ConflictError, match="the case is completed"):
        claim(engine, "a", BILAL)


def test_capacity_counts_live_leases_only(engine):
    """The policy's five: not a sixth, whichever way one comes to it; a case whose lease ended makes room."""
    ids = [f"c{place}" for place in range(7)]
    add(engine, [referral(id_) for id_ in ids])
    claim(engine, ids[0])
    later = NOW + LEASE + SECOND
    for id_ in ids[1:6]:
        claim(engine, id_, now=later)
    with pytest.raises(ConflictError, match="you hold 5 cases already, which is the most that the policy allows"):
        claim(engine, ids[6], now=later)
    with pytest.raises(ConflictError, match="you hold 5 cases already"):  # theirs once, and the lease has ended
        claim(engine, ids[0], now=later)
    claim(engine, ids[1], now=later + SECOND)  # held already: it costs no further place
    release(engine, ids[1], now=later + SECOND)
    assert claim(engine, ids[6], now=later + SECOND).holder == "asma"


def test_release_puts_a_case_back_at_its_place(engine):
    """As if it had not been claimed."""
    new = random_referrals(40, seed=3)
    add(engine, new)
    before = queue_order(engine)
    assert before == in_order(new)
    for id_ in before[10:13]:
        claim(engine, id_)
    for id_ in before[10:13]:
        back = release(engine, id_, now=NOW + SECOND)
        assert (back.state, back.holder, back.lease_us) == ("waiting", None, None)
    assert queue_order(engine) == before


def test_complete_closes_a_case_for_good(engine):
    """It leaves the queue, keeps the outcome, and nothing changes it any more."""
    add(engine, [referral("a")])
    with pytest.raises(ConflictError, match="you do not hold this case"):
        complete(engine, "a")
    claim(engine, "a")
    done = complete(engine, "a", now=NOW + SECOND, detail=b"seen")
    assert (done.state, done.is_open, done.holder, from_us(done.completed_us)) == ("completed", 0, None, NOW + SECOND)
    assert queue_order(engine) == []
    assert bytes(do(engine, lambda unit: store.history_of(unit, "a"))[-1].detail) == b"seen"
    for act in (release, complete, lambda engine, id_: override(engine, id_, 1), lambda engine, id_: reassess(engine, id_, 1)):
        with pytest.raises(ConflictError, match="the case is completed: it can be read, and nothing about it changes any more"):
            act(engine, "a")


def test_an_override_keeps_both_levels_and_the_reason(engine):
    """The machine's level stays readable beside the clinician's, and the case moves to its new place."""
    add(engine, [referral("a", 3), referral("b", 1), referral("c", 4)])
    row = override(engine, "c", 2)
    assert (row.level, row.machine_level, row.override_level, from_us(row.cap_us)) == (2, 4, 2, NOW + timedelta(minutes=60))
    last = do(engine, lambda unit: store.history_of(unit, "c"))[-1]
    assert (last.kind, last.actor, last.level_before, last.level, bytes(last.detail)) == ("overridden", "asma", 4, 2, b"why")
    assert queue_order(engine) == ["b", "c", "a"]
    assert json.loads(rows(engine, "SELECT detail FROM audit WHERE action = 'overridden'")[0][0]) == {
        "level": 2,
        "level_before": 4,
        "revision": 2,
    }


def test_an_override_is_refused_while_another_holds_the_case(engine):
    """The holder decides; once the lease has ended, anybody may."""
    add(engine, [referral("a")])
    claim(engine, "a")
    with pytest.raises(ConflictError, match=HELD):
        override(engine, "a", 1, BILAL, NOW + LEASE)
    assert override(engine, "a", 2).holder == "asma"
    assert override(engine, "a", 1, BILAL, NOW + LEASE + SECOND).level == 1


@pytest.mark.parametrize(("machine", "level"), [(2, 2), (3, 3), (5, 3)])
def test_new_findings_raise_a_case_and_never_lower_it(engine, machine, level):
    """The machine's new level is kept beside the queue's."""
    add(engine, [referral("a", 3)])
    row = reassess(engine, "a", machine)
    assert (row.level, row.machine_level, row.version, bytes(row.summary)) == (level, machine, 2, b"summary 2")
    assert [bytes(one.content) for one in do(engine, lambda unit: store.versions_of(unit, "a"))] == [b"content 1", b"content 2"]


@pytest.mark.parametrize(
    ("overridden", "machine", "level", "kept"),
    [(5, 3, 5, 5), (5, 4, 5, 5), (5, 2, 2, None), (5, 1, 1, None), (1, 2, 1, 1), (1, 4, 1, 1), (2, 1, 1, None)],
)
def test_after_an_override_only_a_more_urgent_assessment_raises(engine, overridden, machine, level, kept):
    """The machine said 3, a clinician `overridden`; the next assessment says `machine`."""
    add(engine, [referral("a", 3)])
    override(engine, "a", overridden)
    row = reassess(engine, "a", machine)
    assert (row.level, row.override_level, row.machine_level) == (level, kept, machine)


def test_an_assessment_of_an_old_version_is_not_stored(engine):
    """Who was overtaken must assess again, with what the other one added."""
    add(engine, [referral("a")])
    assert reassess(engine, "a", 2) is not None
    assert reassess(engine, "a", 1) is None
    assert (find(engine).level, find(engine).version) == (2, 2)
    assert reassess(engine, "a", 1, was_version=2).version == 3


def test_further_photos_are_linked_once(engine):
    """Those that were there are not linked again."""
    add(engine, [referral("a", photos=("1" * 64,))])
    reassess(engine, "a", 3, photos=("1" * 64, "2" * 64))
    assert rows(engine, "SELECT sha256 FROM photo_links ORDER BY sha256") == [("1" * 64,), ("2" * 64,)]


def test_a_note_changes_nothing_but_the_revision(engine):
    """Anybody may leave one, even on a case that another holds."""
    add(engine, [referral("a")])
    before = claim(engine, "a")
    after = do(engine, lambda unit: store.add_note(unit, "a", BILAL, NOW + SECOND, b"note"))
    changed = {name for name, value in before._mapping.items() if after._mapping[name] != value}
    assert changed == {"revision", "updated_us"}
    assert kinds(engine)[-1] == "noted"


def test_claim_next_takes_the_first_that_waits(engine):
    """In the queue's order, within filters, and past what others hold."""
    new = random_referrals(30, seed=5)
    add(engine, new)
    order = in_order(new)
    policy = POLICY.model_copy(update={"queue": POLICY.queue.model_copy(update={"capacity_per_clinician": 50})})
    taken = [do(engine, lambda unit, who=who: store.claim_next(unit, who, policy, NOW, {})).id for who in (ASMA, BILAL) * 3]
    assert taken == order[:6]
    by_id = {one.id: one for one in new}
    expected = next(id_ for id_ in order[6:] if by_id[id_].specialty == "cardiology")
    assert do(engine, lambda unit: store.claim_next(unit, ASMA, policy, NOW, {"specialty": "cardiology"})).id == expected
    assert do(engine, lambda unit: store.claim_next(unit, ASMA, policy, NOW, {"specialty": "nothing"})) is None


def test_claim_next_sees_caps_that_ended_just_now(engine):
    """A case past its cap comes before one that is due sooner, without waiting for the sweep."""
    add(engine, [referral("overdue", 3, minutes_ago=1440, risk=0.0), referral("due", 3, minutes_ago=1439, risk=1.0)])
    assert queue_order(engine) == ["due", "overdue"]
    assert do(engine, lambda unit: store.claim_next(unit, ASMA, POLICY, NOW + SECOND, {})).id == "overdue"


def test_the_sweep_of_caps_moves_each_case_once(engine):
    """After it the stored order is the pure one of that moment; a second one has nothing to do."""
    new = random_referrals(200, seed=7)
    add(engine, new)
    later = NOW + timedelta(minutes=56)
    moved = do(engine, lambda unit: store.sweep_caps(unit, later))
    assert moved > 0
    assert do(engine, lambda unit: store.sweep_caps(unit, later)) == 0
    assert queue_order(engine) == in_order(new, later)


def test_the_sweep_of_leases_returns_what_has_expired(engine):
    """To the moment: a lease lasts to its end, included."""
    add(engine, [referral("a"), referral("b")])
    claim(engine, "a")
    claim(engine, "b", BILAL, NOW + SECOND)
    assert do(engine, lambda unit: store.sweep_leases(unit, NOW + LEASE, CLOCK)) == 0
    assert do(engine, lambda unit: store.sweep_leases(unit, NOW + LEASE + SECOND, CLOCK)) == 1
    assert (find(engine).state, find(engine).holder, find(engine, "b").state) == ("waiting", None, "claimed")
    assert kinds(engine)[-1] == "lease_expired"


def test_a_new_policy_gives_the_order_that_the_pure_queue_has(engine, monkeypatch):
    """In batches, for open cases alone."""
    monkeypatch.setattr(store, "_POLICY_ROWS_AT_ONCE", 17)
    new = random_referrals(60, seed=9)
    add(engine, new)
    claim(engine, new[0].id)
    done = complete(engine, new[0].id)
    levels = {level: one.model_copy(update={"cap_minutes": 40 + 7 * level}) for level, one in POLICY.levels.items()}
    policy = POLICY.model_copy(update={"levels": levels, "queue": POLICY.queue.model_copy(update={"risk_weight": 1.0})})
    last: str | None = ""
    while last is not None:
        last = do(engine, lambda unit, last=last: store.requeue(unit, policy, NOW, last))
    assert queue_order(engine) == in_order(new[1:], NOW, policy) != in_order(new[1:])
    assert find(engine, done.id).due_us == done.due_us


def test_an_idempotency_key_stands_for_one_body(engine):
    """The same body gets the same answer; another one is refused."""

    def work(unit: Unit) -> list[str] | None:
        if not store.remember_answer(unit, "key", "body", ["a", "b"], NOW):
            return store.find_answer(unit, "key", "body")
        return None

    assert do(engine, lambda unit: store.find_answer(unit, "key", "body")) is None
    assert (do(engine, work), do(engine, work)) == (None, ["a", "b"])
    with pytest.raises(UnprocessableError, match="this Idempotency-Key was used for another request: use a new key for a new case"):
        do(engine, lambda unit: store.find_answer(unit, "key", "another"))


def test_fifty_requests_at_once_with_one_key_store_one_referral(queue_url):
    """From fifty threads on four processes' worth of databases, each retrying as a caller would."""
    databases = [Database(queue_url, KEY) for _ in range(4)]
    answers: list[object] = [None] * 50
    start = threading.Barrier(50)

    def send(place: int) -> None:
        def work(unit: Unit) -> str:
            if not store.remember_answer(unit, "key", "body", [f"r{place}"], NOW):
                return store.find_answer(unit, "key", "body")[0]
            return store.insert_referral(unit, referral(f"r{place}"), CLINIC, POLICY, NOW)["id"]

        start.wait()
        try:
            answers[place] = databases[place % 4].run_now(work)
        except Exception as error:  # noqa: BLE001 (a thread's error would be lost)
            answers[place] = error

    threads = [threading.Thread(target=send, args=(place,)) for place in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stored = rows(databases[0].engine, "SELECT id FROM referrals")
    for database in databases:
        database.engine.dispose()
    assert len(stored) == 1
    assert set(answers) == {stored[0][0]}


class Ranked:
    """A scorer that ranks every case alike."""

    async def assess(self, reading, now, _photos):
        return unscored(reading, now, POLICY)


def referrals_of(database: Database, tmp_path: Path) -> Referrals:
    vault = Vault.open(tmp_path / "keys.json", create=True)
    return Referrals(database, vault, Ranked(), POLICY, PhotoStore(tmp_path / "photos", vault), Telemetry(), clock=lambda: NOW)


def test_fifty_submissions_at_once_with_one_key_are_answered_alike(queue_url, tmp_path):
    """Most share a transaction with the first one, whose row is not written yet when they look for it."""
    database = started(queue_url)
    service = referrals_of(database, tmp_path)

    async def main() -> None:
        answers = await asyncio.gather(*(service.submit(CLINIC, Submission({"complaint": "bukhar"}), "key", b"body") for _ in range(50)))
        assert len({one.row["id"] for one in answers}) == 1
        assert sum(not one.is_replay for one in answers) == 1
        assert max(database.group_sizes) > 1
        assert (await service.submit(CLINIC, Submission({}), "key", b"body")).is_replay
        with pytest.raises(UnprocessableError, match="this Idempotency-Key was used for another request"):
            await service.submit(CLINIC, Submission({}), "key", b"another body")
        assert not (await service.submit(OTHER_CLINIC, Submission({}), "key", b"another body")).is_replay  # each caller has their own keys

    asyncio.run(main())
    assert rows(database.engine, "SELECT count(*) FROM referrals") == rows(database.engine, "SELECT count(*) FROM events") == [(2,)]
    database.stop()


def test_two_processes_that_start_together_apply_a_policy(postgres_url):
    """Both find none noted; both come up, and it is noted once."""
    opened(postgres_url).dispose()
    databases = [Database(postgres_url, KEY) for _ in range(4)]
    for database in databases:
        database.start()

    async def main() -> None:
        await asyncio.gather(*(apply_policy(database, POLICY, lambda: NOW) for database in databases))

    asyncio.run(main())
    assert rows(databases[0].engine, "SELECT name, value FROM facts") == [("policy", POLICY.sha256)]
    for database in databases:
        database.stop()


def test_two_processes_cannot_exceed_a_clinicians_capacity(postgres_url):
    """Ten claims at once by one clinician, from ten connections: five succeed."""
    engine = opened(postgres_url)
    add(engine, [referral(f"c{place}") for place in range(10)])
    start = threading.Barrier(10)
    held, refused = [], []

    def take(place: int) -> None:
        start.wait()
        try:
            held.append(claim(engine, f"c{place}").id)
        except ConflictError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=take, args=(place,)) for place in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine.dispose()
    assert (len(held), len(refused)) == (5, 5)


@pytest.mark.parametrize("table", ["referrals", "assessments", "events", "audit"])
def test_no_row_can_be_deleted_through_sql(engine, table):
    """A case cannot be lost by a statement, whoever sends it."""
    add(engine, [referral("a")])
    with pytest.raises(DBAPIError, match=f"rows of {table} are kept"):
        run_sql(engine, f"DELETE FROM {table}")
    assert rows(engine, f"SELECT count(*) FROM {table}") == [(1,)]


def test_no_audit_row_can_be_changed_through_sql(engine):
    """Nor emptied at once."""
    add(engine, [referral("a")])
    with pytest.raises(DBAPIError, match="rows of audit are kept"):
        run_sql(engine, "UPDATE audit SET actor = 'nobody'")
    if engine.dialect.name == "postgresql":
        with pytest.raises(DBAPIError, match="are kept"):
            run_sql(engine, "TRUNCATE audit")
