"""The first tables, and triggers by which no referral, event or audit row can be deleted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

KEPT = {"referrals": ("DELETE",), "assessments": ("DELETE",), "events": ("DELETE",), "audit": ("DELETE", "UPDATE")}


def upgrade() -> None:
    """Create everything."""
    op.create_table(
        "assessments",
        sa.Column("referral_id", sa.String(length=40), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("referral_id", "version"),
    )
    op.create_table(
        "audit",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("action", sa.String(length=40), nullable=False),
        sa.Column("referral_id", sa.String(length=40), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("sequence"),
    )
    op.create_index("ix_audit_referral", "audit", ["referral_id"], unique=False)
    op.create_table(
        "audit_head",
        sa.Column("id", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("mac", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "events",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("referral_id", sa.String(length=40), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("clinic", sa.String(length=128), nullable=False),
        sa.Column("district", sa.String(length=80), nullable=True),
        sa.Column("specialty", sa.String(length=60), nullable=False),
        sa.Column("level_before", sa.SmallInteger(), nullable=True),
        sa.Column("level", sa.SmallInteger(), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("detail", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("sequence"),
    )
    op.create_index("ix_events_clinic", "events", ["clinic", "sequence"], unique=False)
    op.create_index("ix_events_referral", "events", ["referral_id", "sequence"], unique=False)
    op.create_table(
        "facts",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("value", sa.String(length=4000), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "feedback",
        sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("service", sa.String(length=60), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("sequence"),
    )
    op.create_table(
        "fhir_identifiers",
        sa.Column("token", sa.String(length=64), nullable=False),
        sa.Column("type", sa.String(length=40), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("token", "type", "id"),
    )
    op.create_table(
        "fhir_resources",
        sa.Column("type", sa.String(length=40), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("clinic", sa.String(length=128), nullable=False),
        sa.Column("referral_id", sa.String(length=40), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("type", "id"),
    )
    op.create_index("ix_fhir_resources_referral", "fhir_resources", ["referral_id"], unique=False)
    op.create_table(
        "idempotency",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("body", sa.String(length=64), nullable=False),
        sa.Column("referral_ids", sa.String(), nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_idempotency_at", "idempotency", ["at_us"], unique=False)
    op.create_table(
        "photo_links",
        sa.Column("referral_id", sa.String(length=40), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("referral_id", "sha256"),
    )
    op.create_index("ix_photo_links_sha256", "photo_links", ["sha256"], unique=False)
    op.create_table(
        "referrals",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("clinic", sa.String(length=128), nullable=False),
        sa.Column("district", sa.String(length=80), nullable=True),
        sa.Column("specialty", sa.String(length=60), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("is_open", sa.SmallInteger(), nullable=False),
        sa.Column("level", sa.SmallInteger(), nullable=False),
        sa.Column("machine_level", sa.SmallInteger(), nullable=False),
        sa.Column("floor_level", sa.SmallInteger(), nullable=False),
        sa.Column("override_level", sa.SmallInteger(), nullable=True),
        sa.Column("scored_by", sa.String(length=20), nullable=False),
        sa.Column("needs_review", sa.SmallInteger(), nullable=False),
        sa.Column("on_time", sa.SmallInteger(), nullable=False),
        sa.Column("order_us", sa.BigInteger(), nullable=False),
        sa.Column("neg_risk", sa.Float(), nullable=False),
        sa.Column("received_us", sa.BigInteger(), nullable=False),
        sa.Column("due_us", sa.BigInteger(), nullable=False),
        sa.Column("cap_us", sa.BigInteger(), nullable=False),
        sa.Column("stored_us", sa.BigInteger(), nullable=False),
        sa.Column("updated_us", sa.BigInteger(), nullable=False),
        sa.Column("claimed_us", sa.BigInteger(), nullable=True),
        sa.Column("completed_us", sa.BigInteger(), nullable=True),
        sa.Column("erased_us", sa.BigInteger(), nullable=True),
        sa.Column("holder", sa.String(length=200), nullable=True),
        sa.Column("lease_us", sa.BigInteger(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("summary", sa.LargeBinary(), nullable=True),
        sa.Column("patient", sa.LargeBinary(), nullable=True),
        sa.Column("case_token", sa.String(length=64), nullable=False),
        sa.Column("patient_id", sa.String(length=64), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_case_token", "referrals", ["case_token"], unique=False)
    op.create_index(
        "ix_claimed_order",
        "referrals",
        ["level", "on_time", "order_us", "neg_risk", "received_us", "id"],
        unique=False,
        sqlite_where=sa.text("state = 'claimed'"),
        postgresql_where=sa.text("state = 'claimed'"),
    )
    op.create_index(
        "ix_completed",
        "referrals",
        ["completed_us", "id"],
        unique=False,
        sqlite_where=sa.text("state = 'completed'"),
        postgresql_where=sa.text("state = 'completed'"),
    )
    op.create_index(
        "ix_completed_specialty",
        "referrals",
        ["specialty", "completed_us", "id"],
        unique=False,
        sqlite_where=sa.text("state = 'completed'"),
        postgresql_where=sa.text("state = 'completed'"),
    )
    op.create_index(
        "ix_completed_clinic",
        "referrals",
        ["clinic", "completed_us", "id"],
        unique=False,
        sqlite_where=sa.text("state = 'completed'"),
        postgresql_where=sa.text("state = 'completed'"),
    )
    op.create_index(
        "ix_completed_district",
        "referrals",
        ["district", "completed_us", "id"],
        unique=False,
        sqlite_where=sa.text("state = 'completed'"),
        postgresql_where=sa.text("state = 'completed'"),
    )
    op.create_index(
        "ix_on_time_cap",
        "referrals",
        ["cap_us"],
        unique=False,
        sqlite_where=sa.text("is_open = 1 AND on_time = 1"),
        postgresql_where=sa.text("is_open = 1 AND on_time = 1"),
    )
    op.create_index(
        "ix_open_clinic",
        "referrals",
        ["clinic", "level", "on_time", "order_us", "neg_risk", "received_us", "id"],
        unique=False,
        sqlite_where=sa.text("is_open = 1"),
        postgresql_where=sa.text("is_open = 1"),
    )
    op.create_index(
        "ix_open_district",
        "referrals",
        ["district", "level", "on_time", "order_us", "neg_risk", "received_us", "id"],
        unique=False,
        sqlite_where=sa.text("is_open = 1"),
        postgresql_where=sa.text("is_open = 1"),
    )
    op.create_index(
        "ix_open_order",
        "referrals",
        ["level", "on_time", "order_us", "neg_risk", "received_us", "id"],
        unique=False,
        sqlite_where=sa.text("is_open = 1"),
        postgresql_where=sa.text("is_open = 1"),
    )
    op.create_index(
        "ix_open_specialty",
        "referrals",
        ["specialty", "level", "on_time", "order_us", "neg_risk", "received_us", "id"],
        unique=False,
        sqlite_where=sa.text("is_open = 1"),
        postgresql_where=sa.text("is_open = 1"),
    )
    op.create_index(
        "ix_patient",
        "referrals",
        ["patient_id"],
        unique=False,
        sqlite_where=sa.text("patient_id IS NOT NULL"),
        postgresql_where=sa.text("patient_id IS NOT NULL"),
    )
    op.create_index(
        "ix_review_order",
        "referrals",
        ["level", "on_time", "order_us", "neg_risk", "received_us", "id"],
        unique=False,
        sqlite_where=sa.text("is_open = 1 AND needs_review = 1"),
        postgresql_where=sa.text("is_open = 1 AND needs_review = 1"),
    )
    op.create_table(
        "webhooks",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("url", sa.String(length=2000), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("delivered", sa.BigInteger(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("next_try_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )

    op.execute(sa.text("INSERT INTO audit_head (id, sequence, hash, mac) VALUES (1, 0, :hash, '')").bindparams(hash="0" * 64))
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION nabz_refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'rows of % are kept: they cannot be removed or changed', TG_TABLE_NAME; END $$"
        )
    for table, kinds in KEPT.items():
        for kind in kinds:
            _refuse(table, kind)
        if op.get_bind().dialect.name == "postgresql":
            op.execute(f"CREATE TRIGGER keep_{table} BEFORE TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION nabz_refuse()")


def _refuse(table: str, kind: str) -> None:
    """A trigger by which nobody, through whatever door, removes rows of `table` (or, for the audit, changes them)."""
    name = f"keep_{table}_{kind.lower()}"
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"CREATE TRIGGER {name} BEFORE {kind} ON {table} FOR EACH ROW EXECUTE FUNCTION nabz_refuse()")
    else:
        op.execute(f"CREATE TRIGGER {name} BEFORE {kind} ON {table} BEGIN SELECT RAISE(ABORT, 'rows of {table} are kept'); END")
