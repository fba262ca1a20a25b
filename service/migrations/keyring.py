"""Brings the keyring's own database to this release. It is a handful of tables, and has no Alembic of its own."""

from __future__ import annotations

from typing import Final

from sqlalchemy import text

from service.errors import ConfigurationError, KeyringUnavailable
from service.storage.keyring_database import VERSION, KeyringDatabase, refuse_record

#: The advisory lock that lets one migrator work at a time; the number is "mvkeys" in ASCII.
_LOCK: Final = 0x6D766B657973
_TAKE_LOCK: Final = text(f"SELECT pg_advisory_xact_lock({_LOCK})")

_FIRST: Final = (
    "CREATE TABLE keyring_schema (one boolean PRIMARY KEY DEFAULT true CHECK (one), version integer NOT NULL)",
    "INSERT INTO keyring_schema (version) VALUES (0)",
    # Numbers the destructions. Whoever destroys holds this row until the commit, so that the numbers appear in order.
    "CREATE TABLE keyring_state (one boolean PRIMARY KEY DEFAULT true CHECK (one), changes bigint NOT NULL DEFAULT 0)",
    "INSERT INTO keyring_state DEFAULT VALUES",
    "CREATE TABLE wrapping_keys (check_value bytea PRIMARY KEY, added_at timestamptz NOT NULL DEFAULT now())",
    # A tenant's own key has the subject 0.
    "CREATE TABLE keys ("
    " tenant_id uuid NOT NULL, subject_id uuid NOT NULL, wrapped bytea,"
    " wrapped_by bytea REFERENCES wrapping_keys (check_value), created_at timestamptz NOT NULL DEFAULT now(),"
    " destroyed_at timestamptz, destroyed_no bigint, PRIMARY KEY (tenant_id, subject_id),"
    " CHECK ((wrapped IS NULL) = (wrapped_by IS NULL)), CHECK ((wrapped IS NULL) = (destroyed_no IS NOT NULL)))",
    "CREATE INDEX keys_destroyed ON keys (destroyed_no) WHERE destroyed_no IS NOT NULL",
    "CREATE INDEX keys_wrapped_by ON keys (wrapped_by)",
    "CREATE TABLE tombstones (position bigint PRIMARY KEY, id uuid NOT NULL UNIQUE, line bytea NOT NULL)",
    "CREATE FUNCTION stays_done() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
    " RAISE EXCEPTION 'what was destroyed or written down stays so'; END $$",
    "CREATE TRIGGER destroyed_stays_destroyed BEFORE UPDATE ON keys FOR EACH ROW WHEN (OLD.destroyed_no IS NOT NULL)"
    " EXECUTE FUNCTION stays_done()",
    "CREATE TRIGGER keys_leave_a_row BEFORE DELETE ON keys FOR EACH ROW EXECUTE FUNCTION stays_done()",
    "CREATE TRIGGER keys_are_not_emptied BEFORE TRUNCATE ON keys EXECUTE FUNCTION stays_done()",
    "CREATE TRIGGER tombstones_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON tombstones EXECUTE FUNCTION stays_done()",
)
_STEPS: Final = (_FIRST,)


def upgrade_keyring(url: str) -> int:
    """Make or mend the tables with the credential of `keyring.url`, and return their version.

    Raises:
        ConfigurationError: when the database cannot be used, is the record's, or is newer than this release.
    """
    database = KeyringDatabase(url)
    try:
        with database.writing() as connection:
            connection.execute(text("SET LOCAL lock_timeout = '2min'"))
            connection.execute(_TAKE_LOCK)
            refuse_record(connection)
            exists = connection.execute(text("SELECT to_regclass('public.keyring_schema') IS NOT NULL")).scalar_one()
            found: int = connection.execute(text("SELECT version FROM keyring_schema")).scalar_one() if exists else 0
            if found <= VERSION:
                for step in _STEPS[found:]:
                    for statement in step:
                        connection.execute(text(statement))
                connection.execute(text("UPDATE keyring_schema SET version = :version"), {"version": VERSION})
    except KeyringUnavailable as error:
        raise ConfigurationError(
            f"keyring.url: cannot be used ({error.detail}); its role must own the database"
        ) from None
    finally:
        database.close()
    if found > VERSION:
        raise ConfigurationError(
            f"keyring.url: its tables are at {found}, which is newer than this release: install a newer Memvault"
        )
    return VERSION
