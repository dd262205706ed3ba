"""An index of the overrides alone, for those of similar cases: without it, a queue with few overrides would be searched to its start."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create it."""
    overridden = sa.text("kind = 'overridden'")
    op.create_index("ix_events_overridden", "events", ["sequence"], unique=False, sqlite_where=overridden, postgresql_where=overridden)
