"""Tells whether this release can serve the schema of a database, in one line that says what to do if not.

Each migration leaves with the database which revision's release is the oldest that may serve it, as a comment on
Alembic's own table. So a release can tell of a schema newer than itself whether it may go on serving it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

from service.errors import ConfigurationError
from service.migrations import scripts

_COMMENT: Final = "SELECT obj_description(to_regclass('public.alembic_version'), 'pg_class')"
_KEY: Final = "serves_from"


@dataclass(frozen=True, slots=True)
class SchemaState:
    """Where a schema stands, seen from this release: `trouble` is why it is not served, `note` what else to know."""

    found: str | None
    wanted: str
    pending: tuple[str, ...]
    trouble: str | None = None
    note: str | None = None

    @property
    def newer(self) -> bool:
        """Whether a newer release has migrated it."""
        return self.found is not None and self.found != self.wanted and not self.pending


def schema_state(connection: Connection) -> SchemaState:
    """Look at the schema of a database; both the owner and the application role may."""
    found, wanted = current(connection), scripts.head()
    if found == wanted:
        return SchemaState(found, wanted, ())
    if found is None:
        return SchemaState(
            None, wanted, tuple(scripts.order()), "the database has no schema yet: run `memvault migrate`"
        )
    if found in scripts.order():
        pending = tuple(scripts.after(found))
        trouble = f"the schema is at {found}, this release needs {wanted}: run `memvault migrate`"
        return SchemaState(found, wanted, pending, trouble)
    serving = _serves_from(connection, found)
    if serving in scripts.order():
        note = f"the schema is at {found}, which is newer than this release ({wanted}) and says that it may be served"
        return SchemaState(found, wanted, (), note=note)
    needs = f" and needs one that knows {serving}" if serving else ""
    trouble = f"the schema is at {found}, which is newer than this release ({wanted}){needs}: install a newer Memvault"
    return SchemaState(found, wanted, (), trouble)


def check_schema(connection: Connection) -> str | None:
    """Refuse a schema that this release cannot serve; return what is to be known of one that it can.

    Raises:
        ConfigurationError: saying whether it is too old, too new or absent, and what to do.
    """
    state = schema_state(connection)
    if state.trouble is not None:
        raise ConfigurationError(state.trouble)
    return state.note


def current(connection: Connection) -> str | None:
    """Return the revision that the database is at, or None."""
    exists = connection.execute(text("SELECT to_regclass('public.alembic_version') IS NOT NULL")).scalar_one()
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar() if exists else None


def record(connection: Connection, revision: str) -> None:
    """Leave with the database from which revision on a release may serve it; part of each migration's transaction."""
    content = json.dumps({"revision": revision, _KEY: scripts.serves_from(revision)})
    connection.exec_driver_sql(f"COMMENT ON TABLE alembic_version IS '{content}'")


def _serves_from(connection: Connection, found: str) -> str | None:
    try:
        content = json.loads(connection.execute(text(_COMMENT)).scalar() or "")
        # A revision that was set by hand says nothing of what may serve it.
        return str(content[_KEY]) if content["revision"] == found else None
    except (ValueError, KeyError, TypeError):
        return None
