"""A referral's stored assessments, replayed from the database and the photo store. Each replay stands in the audit trail as a read.

Knows how the service came to an assessment beside the models: by rules when they were late, unscored when all failed, and with a
reason of its own after an override. Prints nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import orjson

from inference.assessment import Assessment
from inference.case import Case, CaseReading
from inference.errors import NabzError, NotFoundError
from inference.replay import Replay, Replayer, Way
from inference.service import store
from inference.service.callers import operator
from inference.service.database import Unit, make_engine, transact
from inference.service.intake import NEVER_RAISED
from inference.service.photo_store import PhotoStore
from inference.service.scoring import FAILED, LATE, LOADING
from inference.service.settings import Settings
from inference.service.unscored import unscored
from inference.service.vault import Vault
from inference.stored_assessments import stored_assessment


def replay_referral(settings: Settings, replayer: Replayer, id_: str, version: int | None, now: datetime) -> list[Replay]:
    """Every stored assessment of a referral again, or that of `version` alone, the first one first.

    Raises NotFoundError when there is no such referral or version, StorageError when database or keys cannot be used.
    """
    vault = Vault.open(settings.keys)
    engine = make_engine(settings.database_url)

    def work(unit: Unit) -> list[tuple[int, bytes | None]]:
        store.find_referral(unit, id_)
        found = [(row.version, row.content) for row in store.versions_of(unit, id_) if version in (None, row.version)]
        if not found:
            raise NotFoundError(f"the referral has no assessment {version}: leave --version out to replay all that it has")
        store.record(unit, operator(), "replayed_assessment", id_, now, versions=[number for number, _ in found])
        return found

    try:
        rows = transact(engine, work, vault.mac_key("audit"))
    finally:
        engine.dispose()
    photos = PhotoStore(settings.photos, vault)
    return [_replay(replayer, vault, photos, id_, number, content) for number, content in rows]


def _replay(replayer: Replayer, vault: Vault, photos: PhotoStore, id_: str, version: int, sealed: bytes | None) -> Replay:
    name = f"{id_}, assessment {version}"
    if sealed is None:
        return Replay(name, id_, "impossible", {}, why=("what the patient sent was erased by the retention policy: it cannot be replayed",))
    content: dict[str, Any] = orjson.loads(vault.unseal(sealed, f"assessments:{id_}:{version}"))
    problems = content["problems"]
    reading = CaseReading(Case.model_validate(content["case"]), tuple(one for one in problems if one != NEVER_RAISED))
    kept, lost = _photos(photos, content["photos"])
    after = _with_reason if NEVER_RAISED in problems else None
    stored = stored_assessment(content["assessment"], name)
    replay = replayer.replay(stored, reading, kept, others=list(_without_models(reading, stored.received_at)), after=after)
    return replay if replay.status != "differs" or not lost else _named(replay, lost)


def _without_models(reading: CaseReading, now: datetime) -> Iterator[Way]:
    """How the service ranks when the models are late, not yet loaded or failing, and when the rules fail too."""
    for why in (LATE, LOADING, FAILED):
        yield lambda triage, why=why: triage.by_rules([reading], now, why)[0]  # type: ignore[misc]
    yield lambda triage: unscored(reading, now, triage.policy)


def _with_reason(assessment: Assessment) -> Assessment:
    """As the service stores it after a clinician's override that what came since outweighs."""
    review = assessment.review.model_copy(update={"needed": True, "why": (*assessment.review.why, NEVER_RAISED)})
    return assessment.model_copy(update={"review": review})


def _photos(store_: PhotoStore, named: dict[str, str]) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """The stored photos by the name that the case calls them, and a sentence for each that cannot be read."""
    kept, lost = {}, []
    for name, sha256 in named.items():
        try:
            kept[name] = store_.get(sha256)
        except NabzError as error:
            lost.append(f"the stored photo {sha256[:16]}… cannot be used ({error}): restore it from a backup")
    return kept, tuple(lost)


def _named(replay: Replay, lost: tuple[str, ...]) -> Replay:
    return Replay(replay.name, replay.case_id, replay.status, replay.bundles, replay.differences, (*lost, *replay.why), replay.notes)
