"""`nabz export`: completed referrals as labelled cases to train on, de-identified. The export itself stands in the audit trail.

Erased referrals, and those that the retention policy is about to erase, are left out. Nothing is written before the audit trail
has it. Knows no model; the live bundles' vocabularies say which codes may leave.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, func, select, tuple_

from inference.bundle import load_bundle
from inference.case import Case
from inference.errors import NabzError, StorageError
from inference.models import default_models_folder, live_versions
from inference.service import store
from inference.service.callers import operator
from inference.service.database import Unit, make_engine, read, transact
from inference.service.durable import make_folder, write_durably
from inference.service.export_card import Counted, data_card
from inference.service.export_deidentify import Vocabulary, deidentified
from inference.service.export_labels import Happened, labels_of
from inference.service.export_small_cells import Coarsened, Person, coarsened
from inference.service.photo_store import PhotoStore
from inference.service.settings import Settings
from inference.service.tables import assessments, events, referrals, to_us
from inference.service.vault import Vault

CASES, CARD, CHECKSUMS, PHOTOS = "cases.jsonl", "data_card.json", "SHA256SUMS", "photos"
_AT_ONCE = 200
_IDS_A_ROW = 500  # of the audit trail
_ID_LENGTH = 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which referrals, by when they were completed (`since` is in, `until` is not), and what of them beside codes and numbers."""

    since: datetime | None = None
    until: datetime | None = None
    with_complaints: bool = False
    with_photos: bool = False


@dataclass
class _Found:
    """What was read, as it may leave but for small cells. `photos` maps each new name to the stored content."""

    records: list[dict[str, Any]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    photos: dict[str, str] = field(default_factory=dict)
    bundles: Counter[str] = field(default_factory=Counter)


def export_referrals(
    settings: Settings, folder: Path, wanted: Wanted, now: datetime, progress: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Write completed referrals into `folder`, which must not exist yet or be empty. Returns the data card.

    Raises StorageError when there is nothing to export, or the folder, the database or the keys cannot be used.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StorageError(f"{folder} is not empty: name a new folder for this export")
    vault = Vault.open(settings.keys)
    known = _vocabulary(settings, progress)
    engine = make_engine(settings.database_url)
    with closing(_Disposing(engine)):
        progress("reading completed referrals")
        kept_from = now - timedelta(days=settings.retention_days) if settings.retention_days else None
        found = _read_all(engine, vault, known, wanted, kept_from)
        if not found.records:
            raise StorageError("no completed referral is in this period: choose another one with --since and --until")
        cells = _without_small_cells(found.records)
        found.records.sort(key=lambda record: record["case_id"])  # the order of arrival is nobody's business
        cases = b"".join(orjson.dumps(record) + b"\n" for record in found.records)
        counts = read(engine, lambda connection: _counted(connection, wanted, kept_from))
        period = {"since": _day(wanted.since), "until": _day(wanted.until)}
        card = data_card(
            found.records, period, counts, cells, found.bundles, with_complaints=wanted.with_complaints, with_photos=wanted.with_photos
        )
        card["sha256"] = {CASES: hashlib.sha256(cases).hexdigest()}
        transact(engine, lambda unit: _audit(unit, found, card, wanted, now), vault.mac_key("audit"))
    _write(
        folder,
        {CASES: cases, CARD: json.dumps(card, indent=1).encode() + b"\n"},
        found.photos,
        PhotoStore(settings.photos, vault),
        progress,
    )
    return card


class _Disposing:
    """An engine that is closed like a file."""

    def __init__(self, engine: Engine) -> None:
        self.close = engine.dispose


def _vocabulary(settings: Settings, progress: Callable[[str], None]) -> Vocabulary:
    """What the live bundles know. Without a symptom bundle no finding and no place leaves, which is said."""
    models = settings.models or default_models_folder()
    vocabularies: dict[str, Mapping[str, Any]] = {"symptoms": {}, "lesions": {}}
    for task in vocabularies:
        try:
            vocabularies[task] = load_bundle(models / task / live_versions(models)[task]).contract.vocabulary
        except (NabzError, OSError, ValueError, KeyError) as error:
            what = "findings, districts and provinces" if task == "symptoms" else "body sites of photos"
            progress(f"warning: the live {task} bundle cannot be read ({type(error).__name__}): {what} are left out")
    return Vocabulary.of_contracts(vocabularies["symptoms"], vocabularies["lesions"])


def _read_all(engine: Engine, vault: Vault, known: Vocabulary, wanted: Wanted, kept_from: datetime | None) -> _Found:
    found, last = _Found(), None
    key = vault.mac_key("export")
    while page := read(engine, lambda connection, last=last: _page(connection, wanted, kept_from, last)):  # type: ignore[misc]
        history = read(engine, lambda connection, page=page: _events(connection, [row.id for row in page]))  # type: ignore[misc]
        for row in page:
            _add(found, row, history.get(row.id, []), vault, key, known, wanted)
        last = (page[-1].completed_us, page[-1].id)
    return found


def _page(connection: Connection, wanted: Wanted, kept_from: datetime | None, last: tuple[int, str] | None) -> list[Any]:
    """The next completed referrals with their latest assessment."""
    place = referrals.c.completed_us, referrals.c.id
    query = (
        select(referrals, assessments.c.content)
        .join(assessments, (assessments.c.referral_id == referrals.c.id) & (assessments.c.version == referrals.c.version))
        .where(referrals.c.state == store.COMPLETED, referrals.c.erased_us.is_(None), assessments.c.content.is_not(None), *_in(wanted))
        .order_by(*place)
        .limit(_AT_ONCE)
    )
    if kept_from is not None:
        query = query.where(referrals.c.completed_us >= to_us(kept_from))
    return list(connection.execute(query if last is None else query.where(tuple_(*place) > tuple_(*last))))


def _in(wanted: Wanted) -> Iterator[Any]:
    if wanted.since is not None:
        yield referrals.c.completed_us >= to_us(wanted.since)
    if wanted.until is not None:
        yield referrals.c.completed_us < to_us(wanted.until)


def _events(connection: Connection, ids: list[str]) -> dict[str, list[Any]]:
    history: dict[str, list[Any]] = {}
    for event in connection.execute(select(events).where(events.c.referral_id.in_(ids)).order_by(events.c.sequence)):
        history.setdefault(event.referral_id, []).append(event)
    return history


def _add(found: _Found, row: Any, history: list[Any], vault: Vault, key: bytes, known: Vocabulary, wanted: Wanted) -> None:
    content = orjson.loads(vault.unseal(row.content, f"assessments:{row.id}:{row.version}"))
    happened = [
        Happened(one.kind, one.level_before, one.level, orjson.loads(vault.unseal(one.detail, f"events:{row.id}")) if one.detail else {})
        for one in history
    ]
    case_id = _pseudonym("c", row.id, key)
    photos: dict[str, str] = {}
    if wanted.with_photos:
        photos = {path: f"{case_id}-{number}.jpg" for number, path in enumerate(content["photos"], start=1)}
        found.photos.update({photos[path]: sha256 for path, sha256 in content["photos"].items()})
    case, assessment = Case.model_validate(content["case"]), content["assessment"]
    record = deidentified(case, assessment["findings"], photos, known, with_complaint=wanted.with_complaints)
    labels = labels_of(row.level, row.machine_level, row.override_level, happened)
    labels["patient"] = None if row.patient_id is None else _pseudonym("p", row.patient_id, key)
    found.records.append({"case_id": case_id, **record, "labels": labels})
    found.ids.append(row.id)
    for task, bundle in assessment["provenance"]["bundles"].items():
        found.bundles[f"{task} {bundle['version']}"] += 1


def _pseudonym(kind: str, name: str, key: bytes) -> str:
    """The same name has the same pseudonym in every export of this service; only who holds the key can tell whose it is."""
    return f"{kind}-{hmac.digest(key, f'{kind}:{name}'.encode(), hashlib.sha256).hex()[:_ID_LENGTH]}"


def _without_small_cells(records: list[dict[str, Any]]) -> Coarsened:
    """Take places away, in the records themselves, where too few share them."""
    cells = coarsened([Person(one.get("age_years"), one["sex"], one.get("district"), one.get("province")) for one in records])
    for record, person in zip(records, cells.people, strict=True):
        for name, place in (("district", person.district), ("province", person.province)):
            if place is None:
                record.pop(name, None)
    return cells


def _counted(connection: Connection, wanted: Wanted, kept_from: datetime | None) -> Counted:
    """How many referrals are not in the export; open ones have no time of completion, so that they are counted whole."""

    def count(*conditions: Any) -> int:
        return int(connection.execute(select(func.count()).select_from(referrals).where(*conditions)).scalar_one())

    completed = (referrals.c.state == store.COMPLETED, *_in(wanted))
    due = 0 if kept_from is None else count(*completed, referrals.c.erased_us.is_(None), referrals.c.completed_us < to_us(kept_from))
    return Counted(count(referrals.c.is_open == 1), count(*completed, referrals.c.erased_us.is_not(None)), due)


def _audit(unit: Unit, found: _Found, card: Mapping[str, Any], wanted: Wanted, now: datetime) -> None:
    """Who took what: one row for the export, and rows that name every referral in it."""
    who = operator()
    options = {"complaints": wanted.with_complaints, "photos": len(found.photos)}
    store.record(unit, who, "exported", None, now, n=card["n"], period=card["period_completed"], sha256=card["sha256"][CASES], **options)
    for first in range(0, len(found.ids), _IDS_A_ROW):
        store.record(unit, who, "exported_referrals", None, now, referrals=found.ids[first : first + _IDS_A_ROW])


def _write(folder: Path, files: Mapping[str, bytes], photos: Mapping[str, str], kept: PhotoStore, progress: Callable[[str], None]) -> None:
    sums = {}
    try:
        make_folder(folder)
        for number, (name, sha256) in enumerate(sorted(photos.items())):
            if not number:
                progress(f"writing {len(photos)} photos")
                make_folder(folder / PHOTOS)
            content = kept.get(sha256)
            write_durably(folder / PHOTOS / name, content)
            sums[f"{PHOTOS}/{name}"] = hashlib.sha256(content).hexdigest()
        for name, content in files.items():
            write_durably(folder / name, content)
            sums[name] = hashlib.sha256(content).hexdigest()
        write_durably(folder / CHECKSUMS, "".join(f"{found}  {name}\n" for name, found in sorted(sums.items())).encode())
    except OSError as error:
        raise StorageError(f"{folder} cannot be written ({error.strerror}): make room, delete it and export again") from error


def _day(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).date().isoformat()
