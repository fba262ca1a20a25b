"""Brings the schema to this release, once at a time, and says where it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, NullPool, create_engine, text

from service.errors import ConfigurationError

#: The advisory lock that lets one migrator work at a time; the number is "memv" in ASCII.
_MIGRATION_LOCK: Final = 0x6D656D76
_GUEST_MANNERS: Final = "SET lock_timeout = '5s'; SET statement_timeout = '10min'"


def upgrade(owner_dsn: str, *, app_role: str, revision: str = "head") -> str:
    """Migrate the schema and return the revision it is at. A second migrator waits for the first.

    Raises:
        ConfigurationError: when the owner's database cannot be reached.
    """
    return _run(owner_dsn, app_role, lambda config: command.upgrade(config, revision))


def downgrade(owner_dsn: str, *, app_role: str, revision: str) -> str:
    """Take the schema back to an older revision and return it."""
    return _run(owner_dsn, app_role, lambda config: command.downgrade(config, revision))


def check_schema(connection: Connection) -> None:
    """Refuse a schema that is not the one of this release.

    Raises:
        ConfigurationError: saying whether it is too old, too new or absent, and what to do.
    """
    wanted = ScriptDirectory.from_config(_config()).get_current_head()
    found = current(connection)
    if found == wanted:
        return
    if found is None:
        raise ConfigurationError("the database has no schema yet: run `memvault migrate`")
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if found in known:
        raise ConfigurationError(f"the schema is at {found}, this release needs {wanted}: run `memvault migrate`")
    raise ConfigurationError(f"the schema is at {found}, which is newer than this release: install a newer Memvault")


def current(connection: Connection) -> str | None:
    """Return the revision that the database is at, or None."""
    exists = connection.execute(text("SELECT to_regclass('public.alembic_version') IS NOT NULL")).scalar_one()
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar() if exists else None


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    return config


def _run(owner_dsn: str, app_role: str, work: Any) -> str:
    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(owner_dsn, connect_timeout=10),
        poolclass=NullPool,
        hide_parameters=True,
    )
    try:
        connection = engine.connect()
    except Exception as error:
        raise ConfigurationError(f"database.owner_url: the database does not answer ({type(error).__name__})") from None
    with connection:
        connection.execute(text(_GUEST_MANNERS))
        connection.execute(text("SET lock_timeout = '2min'"))
        connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": _MIGRATION_LOCK})
        connection.execute(text(_GUEST_MANNERS))
        connection.commit()
        try:
            config = _config()
            config.attributes["connection"] = connection
            config.attributes["app_role"] = app_role
            work(config)
            connection.commit()
            return MigrationContext.configure(connection).get_current_revision() or "base"
        finally:
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": _MIGRATION_LOCK})
            connection.commit()
