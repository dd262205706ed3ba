"""Brings a database to this version's tables. A migration that was broken off is undone by the database and begins again.

Knows versions, not what the tables mean.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from inference.errors import StorageError

_LOCK = 0x6E61627A  # "nabz": PostgreSQL's advisory lock, so that two processes that start together migrate one after the other


def migrate(engine: Engine) -> str:
    """Upgrade to the newest version and return its name. Raises StorageError when the database is newer, or cannot be changed."""
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
            known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
            found = version(connection)
            if found is not None and found not in known:
                raise StorageError(f"the database is of version {found}, which this version of Nabz does not know: install a newer one")
            configuration = _config()
            configuration.attributes["connection"] = connection
            command.upgrade(configuration, "head")
            return str(version(connection))
    except SQLAlchemyError as error:
        origin = type(getattr(error, "orig", None) or error).__name__
        raise StorageError(f"the database cannot be brought to this version ({origin}): see that it is there and can be written") from error


def version(connection: Connection) -> str | None:
    """The version that the database is of; None for an empty one."""
    return MigrationContext.configure(connection).get_current_revision()


def is_current(connection: Connection) -> bool:
    """Whether the database is of this version."""
    return version(connection) == ScriptDirectory.from_config(_config()).get_current_head()


def _config() -> Config:
    configuration = Config()
    configuration.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return configuration
