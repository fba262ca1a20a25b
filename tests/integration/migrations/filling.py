"""Fills tables by SQL at whatever revision the schema is: one row at least in each that is empty."""

from __future__ import annotations

import re
from typing import Any, Final

import psycopg
from psycopg import sql

Connection = psycopg.Connection[tuple[Any, ...]]

#: A value for each type that a column without a default has.
_BY_TYPE: Final[dict[str, str]] = {
    "uuid": "gen_random_uuid()",
    "character varying": "'something'",
    "text": "'something'",
    "bytea": "'\\x0001'",
    "bigint": "1",
    "smallint": "1",
    "integer": "1",
    "double precision": "1",
    "boolean": "false",
    "jsonb": "'{}'",
    "date": "current_date",
    "timestamp with time zone": "now()",
    "ARRAY": "'{}'",
}
#: Columns that take another value than their type, or the first of those that the schema allows.
_BY_COLUMN: Final[dict[tuple[str, str], str]] = {
    ("memories", "user_id"): "(SELECT id FROM subjects LIMIT 1)",
    ("memories", "owner_id"): "(SELECT id FROM subjects LIMIT 1)",
    ("quarantine", "user_id"): "(SELECT id FROM subjects LIMIT 1)",
    ("quarantine", "owner_id"): "(SELECT id FROM subjects LIMIT 1)",
    ("events", "status"): "'SUCCEEDED'",
    ("tasks", "state"): "'succeeded'",
    ("erasures", "status"): "'completed'",
}
#: Tables that the schema itself fills, by triggers or by the installation.
QUEUE: Final = "procrastinate_%"


def tables(admin: Connection) -> list[str]:
    """All tables but those of the queue and of Alembic, those that others refer to first."""
    names = {
        str(row[0])
        for row in admin.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename NOT LIKE %s"
            " AND tablename <> 'alembic_version'",
            [QUEUE],
        )
    }
    refers: dict[str, set[str]] = {name: set() for name in names}
    for table, other in admin.execute(
        "SELECT conrelid::regclass::text, confrelid::regclass::text FROM pg_constraint WHERE contype = 'f'"
        " AND connamespace = 'public'::regnamespace"
    ):
        if table in refers and other in names and table != other:
            refers[table].add(other)
    ordered: list[str] = []
    while refers:
        free = sorted(name for name, others in refers.items() if not others - set(ordered))
        ordered += free
        for name in free:
            del refers[name]
    return ordered


def counts(admin: Connection) -> dict[str, int]:
    """How many rows each table has."""
    return {name: _count(admin, name) for name in tables(admin)}


def fill(admin: Connection) -> list[str]:
    """Put a row into each empty table, as a superuser, whom row-level security does not bind; return which."""
    filled = []
    # Triggers ask who does something, a hold by a person for instance: the rows are as if that had been so.
    admin.execute("SET session_replication_role = replica")
    if _count(admin, "tenants") == 1:
        _insert(admin, "tenants")
    for name in tables(admin):
        if _count(admin, name) == 0:
            _insert(admin, name)
            filled.append(name)
    admin.execute("RESET session_replication_role")
    assert all(counts(admin).values())
    return filled


def _count(admin: Connection, name: str) -> int:
    row = admin.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(name))).fetchone()
    assert row is not None
    return int(row[0])


def _insert(admin: Connection, name: str) -> None:
    values: dict[str, str] = {}
    allowed = _allowed(admin, name)
    for column, kind, nullable, default, identity in admin.execute(
        "SELECT column_name, data_type, is_nullable, column_default, is_identity FROM information_schema.columns"
        " WHERE table_schema = 'public' AND table_name = %s",
        [name],
    ).fetchall():
        if (name, column) in _BY_COLUMN:
            values[column] = _BY_COLUMN[name, column]
        elif nullable == "NO" and default is None and identity == "NO":
            values[column] = allowed.get(column, _BY_TYPE[kind])
    values |= _references(admin, name, set(values))
    if "tenant_id" in values:
        values["tenant_id"] = "(SELECT id FROM tenants WHERE status <> 'system' ORDER BY created_at LIMIT 1)"
    admin.execute(f"INSERT INTO {name} ({', '.join(values)}) VALUES ({', '.join(values.values())})")


def _allowed(admin: Connection, name: str) -> dict[str, str]:
    """The first of the words that a column may hold, where the schema lists them."""
    rows = admin.execute(
        "SELECT a.attname, pg_get_constraintdef(c.oid) FROM pg_constraint c"
        " JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]"
        " WHERE c.contype = 'c' AND cardinality(c.conkey) = 1 AND c.conrelid = %s::regclass",
        [name],
    )
    return {column: found[1] for column, check in rows if (found := re.search(r"ARRAY\[\(?('[^']+')", check))}


def _references(admin: Connection, name: str, used: set[str]) -> dict[str, str]:
    """What the columns of foreign keys take: what a row that is there has."""
    found: dict[str, str] = {}
    for column, other, target in admin.execute(
        "SELECT a.attname, c.confrelid::regclass::text, b.attname FROM pg_constraint c"
        " CROSS JOIN LATERAL unnest(c.conkey, c.confkey) AS k (own, theirs)"
        " JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.own"
        " JOIN pg_attribute b ON b.attrelid = c.confrelid AND b.attnum = k.theirs"
        " WHERE c.contype = 'f' AND c.conrelid = %s::regclass",
        [name],
    ).fetchall():
        if column in used and column != "tenant_id" and (name, column) not in _BY_COLUMN:
            found[column] = f"(SELECT {target} FROM {other} LIMIT 1)"
    return found
