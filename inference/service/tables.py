"""The tables. What a column means stands here; who writes it, when and why does not.

Times are whole microseconds since 1970 in UTC (`…_us`). `LargeBinary` columns are sealed by the vault: complaints, answers,
identities and clinicians' words are never stored in the clear. Nothing but a retention policy empties them, and no row of
`referrals`, `events` or `audit` can be deleted (triggers, see the first migration).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    text,
)

metadata = MetaData()
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ROW_NUMBER = BigInteger().with_variant(Integer(), "sqlite")

# The order of the queue, as `inference.queue.order_key` has it: ascending in every column, so that a page is one index range.
ORDER_COLUMNS = ("level", "on_time", "order_us", "neg_risk", "received_us", "id")
_OPEN = text("is_open = 1")
_CLAIMED = text("state = 'claimed'")
_HAS_PATIENT = text("patient_id IS NOT NULL")

referrals = Table(
    "referrals",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("clinic", String(128), nullable=False),
    Column("district", String(80)),
    Column("specialty", String(60), nullable=False),
    Column("state", String(12), nullable=False),  # waiting, claimed, completed
    Column("is_open", SmallInteger, nullable=False),  # 1 unless completed
    Column("level", SmallInteger, nullable=False),  # the level in the queue
    Column("machine_level", SmallInteger, nullable=False),  # of the latest assessment
    Column("floor_level", SmallInteger, nullable=False),
    Column("override_level", SmallInteger),  # a clinician's, which only new findings that are worse can raise
    Column("scored_by", String(20), nullable=False),
    Column("needs_review", SmallInteger, nullable=False),
    Column("on_time", SmallInteger, nullable=False),  # 0 once past the wait cap
    Column("order_us", BigInteger, nullable=False),  # due_us while on time, cap_us afterwards
    Column("neg_risk", Float, nullable=False),
    Column("received_us", BigInteger, nullable=False),
    Column("due_us", BigInteger, nullable=False),
    Column("cap_us", BigInteger, nullable=False),
    Column("stored_us", BigInteger, nullable=False),
    Column("updated_us", BigInteger, nullable=False),
    Column("claimed_us", BigInteger),
    Column("completed_us", BigInteger),
    Column("erased_us", BigInteger),
    Column("holder", String(200)),
    Column("lease_us", BigInteger),
    Column("version", Integer, nullable=False),  # of the assessment
    Column("revision", Integer, nullable=False),  # of anything
    Column("summary", LargeBinary),  # sealed: a row of the worklist
    Column("patient", LargeBinary),  # sealed: identity, where one was sent
    Column("case_token", String(64), nullable=False),  # keyed hash of the sender's case_id
    Column("patient_id", String(64)),  # of the FHIR Patient, where there is one
)
Index("ix_open_order", *(referrals.c[name] for name in ORDER_COLUMNS), sqlite_where=_OPEN, postgresql_where=_OPEN)
for _filter in ("specialty", "clinic", "district"):
    Index(
        f"ix_open_{_filter}",
        referrals.c[_filter],
        *(referrals.c[name] for name in ORDER_COLUMNS),
        sqlite_where=_OPEN,
        postgresql_where=_OPEN,
    )
Index("ix_claimed_order", *(referrals.c[name] for name in ORDER_COLUMNS), sqlite_where=_CLAIMED, postgresql_where=_CLAIMED)
_ON_TIME = text("is_open = 1 AND on_time = 1")
Index("ix_on_time_cap", referrals.c.cap_us, sqlite_where=_ON_TIME, postgresql_where=_ON_TIME)
_COMPLETED = text("state = 'completed'")
Index("ix_completed", referrals.c.completed_us, referrals.c.id, sqlite_where=_COMPLETED, postgresql_where=_COMPLETED)
for _filter in ("specialty", "clinic", "district"):
    Index(
        f"ix_completed_{_filter}",
        referrals.c[_filter],
        referrals.c.completed_us,
        referrals.c.id,
        sqlite_where=_COMPLETED,
        postgresql_where=_COMPLETED,
    )
_REVIEW = text("is_open = 1 AND needs_review = 1")
Index("ix_review_order", *(referrals.c[name] for name in ORDER_COLUMNS), sqlite_where=_REVIEW, postgresql_where=_REVIEW)

Index("ix_case_token", referrals.c.case_token)
Index("ix_patient", referrals.c.patient_id, sqlite_where=_HAS_PATIENT, postgresql_where=_HAS_PATIENT)

assessments = Table(  # every assessment that was ever made of a referral, with the case that it was made from
    "assessments",
    metadata,
    Column("referral_id", String(40), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("at_us", BigInteger, nullable=False),
    Column("content", LargeBinary),  # sealed: case, assessment, what changed
)

events = Table(  # the history of referrals; also what live updates and webhooks are sent from
    "events",
    metadata,
    Column("sequence", _ROW_NUMBER, primary_key=True, autoincrement=True),
    Column("at_us", BigInteger, nullable=False),
    Column("referral_id", String(40), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("actor", String(200), nullable=False),
    Column("role", String(20), nullable=False),
    Column("clinic", String(128), nullable=False),
    Column("district", String(80)),
    Column("specialty", String(60), nullable=False),
    Column("level_before", SmallInteger),
    Column("level", SmallInteger, nullable=False),
    Column("state", String(12), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("detail", LargeBinary),  # sealed: a clinician's reason or note
)
Index("ix_events_referral", events.c.referral_id, events.c.sequence)
Index("ix_events_clinic", events.c.clinic, events.c.sequence)
_OVERRIDDEN = text("kind = 'overridden'")
Index("ix_events_overridden", events.c.sequence, sqlite_where=_OVERRIDDEN, postgresql_where=_OVERRIDDEN)

audit = Table(  # who read or changed what; hash-chained, see audit.py
    "audit",
    metadata,
    Column("sequence", _ROW_NUMBER, primary_key=True, autoincrement=False),
    Column("at_us", BigInteger, nullable=False),
    Column("actor", String(200), nullable=False),
    Column("role", String(20), nullable=False),
    Column("action", String(40), nullable=False),
    Column("referral_id", String(40)),
    Column("detail", Text, nullable=False),  # JSON without personal data
    Column("hash", String(64), nullable=False),
)
Index("ix_audit_referral", audit.c.referral_id)

audit_head = Table(  # one row: where the chain ends, so that a cut-off end is noticed
    "audit_head",
    metadata,
    Column("id", SmallInteger, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
    Column("mac", String(64), nullable=False),
)

idempotency = Table(  # what an Idempotency-Key was answered with
    "idempotency",
    metadata,
    Column("key", String(64), primary_key=True),  # hash of caller, route and key
    Column("body", String(64), nullable=False),  # hash of the request
    Column("referral_ids", String, nullable=False),  # JSON
    Column("at_us", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
Index("ix_idempotency_at", idempotency.c.at_us)

photo_links = Table(  # which referral a stored photo belongs to
    "photo_links",
    metadata,
    Column("referral_id", String(40), primary_key=True),
    Column("sha256", String(64), primary_key=True),
)
Index("ix_photo_links_sha256", photo_links.c.sha256)

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("url", String(2000), nullable=False),
    Column("secret", LargeBinary, nullable=False),  # sealed
    Column("is_active", Boolean, nullable=False),
    Column("delivered", BigInteger, nullable=False),  # sequence of the last event that the receiver accepted
    Column("failures", Integer, nullable=False),
    Column("next_try_us", BigInteger, nullable=False),
)

fhir_resources = Table(  # resources as they were sent, for reading back and for conditional creates
    "fhir_resources",
    metadata,
    Column("type", String(40), primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("clinic", String(128), nullable=False),
    Column("referral_id", String(40)),
    Column("version", Integer, nullable=False),
    Column("at_us", BigInteger, nullable=False),
    Column("content", LargeBinary),  # sealed
)
Index("ix_fhir_resources_referral", fhir_resources.c.referral_id)

fhir_identifiers = Table(  # keyed hashes of identifiers: they can be looked up, and not read
    "fhir_identifiers",
    metadata,
    Column("token", String(64), primary_key=True),
    Column("type", String(40), primary_key=True),
    Column("id", String(64), primary_key=True),
)

feedback = Table(  # what clinicians did with CDS Hooks cards
    "feedback",
    metadata,
    Column("sequence", _ROW_NUMBER, primary_key=True, autoincrement=True),
    Column("at_us", BigInteger, nullable=False),
    Column("actor", String(200), nullable=False),
    Column("service", String(60), nullable=False),
    Column("content", LargeBinary, nullable=False),  # sealed
)

facts = Table(  # facts of the installation, such as the policy by which due times were computed
    "facts",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("value", String(4000), nullable=False),
)


def to_us(moment: datetime) -> int:
    """A time with its zone as microseconds since 1970."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def from_us(microseconds: int) -> datetime:
    """Microseconds since 1970 as a time in UTC; the nearest one that there is, for a clock that is far wrong."""
    try:
        return _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC) if microseconds > 0 else datetime.min.replace(tzinfo=UTC)
