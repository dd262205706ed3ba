"""Alembic's door: runs the migrations on the connection that migration.py opened, within its transaction."""

from __future__ import annotations

from alembic import context

from inference.service.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True)
context.run_migrations()
