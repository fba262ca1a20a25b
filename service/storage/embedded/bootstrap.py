"""Makes the database of an embedded installation and its three roles, and keeps their passwords."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql

from service.storage.embedded.cluster import new_password
from service.storage.embedded.errors import EmbeddedPostgresError
from service.storage.embedded.layout import Layout
from service.storage.embedded.server import Server, set_password

DATABASE = "memvault"
OWNER = "memvault_owner"
APPLICATION = "memvault_app"
MAINTENANCE = "memvault_maintenance"

_FILE = "credentials.json"
_LOCK = 0x6D656D7661756C74  # 'memvault': one bootstrap at a time
_PLAIN = "LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE NOREPLICATION"


@dataclass(frozen=True)
class Credentials:
    """Connection strings of the three roles; they hold passwords and are therefore not shown."""

    owner_dsn: str = field(repr=False)
    app_dsn: str = field(repr=False)
    maintenance_dsn: str = field(repr=False)


@dataclass(frozen=True)
class _Passwords:
    memvault_owner: str
    memvault_app: str
    memvault_maintenance: str


def ensure_database(server: Server, *, folder: Path) -> Credentials:
    """Make sure that the database and its roles exist and are what they should be, and return how to log in.

    `folder` is the one given to EmbeddedPostgres; the passwords lie there in `credentials.json` (0600). If that file is
    missing, the roles get new passwords. Safe to call at every start and from several processes at once.

    `memvault_owner` owns the database. `memvault_app` is bound by row-level security and owns nothing.
    `memvault_maintenance` may vacuum and rewrite tables, checkpoint and switch the WAL, and is not the owner either.
    """
    layout = Layout(folder.expanduser().resolve())
    with psycopg.connect(server.superuser_dsn(), autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
        _ensure_roles(connection)
        passwords = _read(layout)
        if passwords is None:
            passwords = _Passwords(new_password(), new_password(), new_password())
            with connection.transaction():
                for role, password in asdict(passwords).items():
                    set_password(connection, role, password)
            # Written after the commit: a file that exists holds passwords that are set.
            layout.write(layout.folder / _FILE, json.dumps(asdict(passwords)) + "\n")
        _ensure_database(connection)
        with psycopg.connect(server.superuser_dsn(DATABASE), autocommit=True) as inside:
            _ensure_rights(inside)
    return Credentials(
        owner_dsn=server.dsn(dbname=DATABASE, user=OWNER, password=passwords.memvault_owner),
        app_dsn=server.dsn(dbname=DATABASE, user=APPLICATION, password=passwords.memvault_app),
        maintenance_dsn=server.dsn(dbname=DATABASE, user=MAINTENANCE, password=passwords.memvault_maintenance),
    )


def _read(layout: Layout) -> _Passwords | None:
    path = layout.folder / _FILE
    try:
        return _Passwords(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise EmbeddedPostgresError(
            f"the passwords of the database roles cannot be read from {path}: run memvault as the user that owns the "
            "file, or remove it to have new passwords made"
        ) from error


def _ensure_roles(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    for role in (OWNER, APPLICATION, MAINTENANCE):
        known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone()
        verb = sql.SQL("ALTER" if known else "CREATE")
        connection.execute(sql.SQL("{} ROLE {} {}").format(verb, sql.Identifier(role), sql.SQL(_PLAIN)))
    memberships = connection.execute(
        "SELECT pg_get_userbyid(roleid), pg_get_userbyid(member) FROM pg_auth_members"
        " WHERE member IN (%s::regrole, %s::regrole, %s::regrole)"
        " AND NOT (member = %s::regrole AND roleid IN ('pg_maintain'::regrole, 'pg_checkpoint'::regrole))",
        [OWNER, APPLICATION, MAINTENANCE, MAINTENANCE],
    ).fetchall()
    for granted, member in memberships:
        names = sql.Identifier(str(granted)), sql.Identifier(str(member))
        connection.execute(sql.SQL("REVOKE {} FROM {}").format(*names))
    connection.execute(sql.SQL("GRANT pg_maintain, pg_checkpoint TO {}").format(sql.Identifier(MAINTENANCE)))


def _ensure_database(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone() is None:
        connection.execute(
            sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(DATABASE), sql.Identifier(OWNER))
        )
    for database in (DATABASE, "postgres", "template1"):
        connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(database)))
    connection.execute(
        sql.SQL("GRANT CONNECT ON DATABASE {} TO {}, {}").format(
            sql.Identifier(DATABASE), sql.Identifier(APPLICATION), sql.Identifier(MAINTENANCE)
        )
    )


def _ensure_rights(inside: psycopg.Connection[tuple[object, ...]]) -> None:
    inside.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    inside.execute(
        sql.SQL("GRANT EXECUTE ON FUNCTION pg_catalog.pg_switch_wal() TO {}").format(sql.Identifier(MAINTENANCE))
    )
