"""Brings a database to this version's tables. A migration that was broken off is undone by the database and begins again.

Knows versions, not what the tables mean.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, inspect
from sqlalchemy.exc import SQLAlchemyError

from inference.errors import StorageError

if TYPE_CHECKING:
    from alembic.config import Config

_FOLDER = Path(__file__).parent / "migrations"

_LOCK = 0x6E61627A  # "nabz": PostgreSQL's advisory lock, so that two processes that start together migrate one after the other


def migrate(engine: Engine) -> str:
    """Upgrade to the newest version and return its name. Raises StorageError when the database is newer, or cannot be changed."""
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
            known, found = _known(), version(connection)
            if found is not None and found not in known:
                raise StorageError(f"the database is of version {found}, which this version of Nabz does not know: install a newer one")
            if found != known[-1]:
                _upgrade(connection)
            return known[-1]
    except SQLAlchemyError as error:
        origin = type(getattr(error, "orig", None) or error).__name__
        raise StorageError(f"the database cannot be brought to this version ({origin}): see that it is there and can be written") from error


def version(connection: Connection) -> str | None:
    """The version that the database is of; None for an empty one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return None if found is None else str(found)


def is_current(connection: Connection) -> bool:
    """Whether the database is of this version."""
    return version(connection) == _known()[-1]


def _known() -> list[str]:
    """The versions in order, by their files' names: Alembic itself takes a quarter of a second to load."""
    return sorted(path.name.partition("_")[0] for path in (_FOLDER / "versions").glob("[0-9]*.py"))


def _upgrade(connection: Connection) -> None:
    from alembic import command

    configuration = _config()
    configuration.attributes["connection"] = connection
    command.upgrade(configuration, "head")


def _config() -> Config:
    from alembic.config import Config

    configuration = Config()
    configuration.set_main_option("script_location", str(_FOLDER))
    return configuration
