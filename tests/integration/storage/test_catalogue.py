"""The catalogue of the database: every table with a tenant is behind forced row-level security, keyed by the tenant."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import NullPool, create_engine
from sqlmodel import SQLModel

from service import wiring  # noqa: F401 - imports every table
from service.errors import ConfigurationError
from service.migrations.runner import check_schema, downgrade, upgrade
from service.storage.database import Database
from service.storage.erasers import erasers, kept_tables, undeclared
from service.storage.tables import TENANT_BLIND_TABLES
from tests.conftest import Postgres

pytestmark = [pytest.mark.integration, pytest.mark.postgres_suite]


@pytest.fixture
def admin(database: Postgres) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A superuser's connection to the test's database."""
    with psycopg.connect(database.admin, autocommit=True) as connection:
        yield connection


def tables(admin: psycopg.Connection[tuple[object, ...]]) -> set[str]:
    """All tables but those of the queue."""
    rows = admin.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return {str(row[0]) for row in rows if not str(row[0]).startswith("procrastinate_")}


def head() -> str:
    """The last migration."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parents[3] / "service" / "migrations"))
    return str(ScriptDirectory.from_config(config).get_current_head())


def test_every_table_is_either_tenant_blind_or_behind_forced_row_level_security(
    admin: psycopg.Connection[tuple[object, ...]],
) -> None:
    rows = admin.execute(
        "SELECT c.relname, c.relrowsecurity, c.relforcerowsecurity,"
        " (SELECT count(*) FROM pg_policy p WHERE p.polrelid = c.oid AND p.polqual IS NOT NULL"
        "  AND p.polwithcheck IS NOT NULL AND p.polpermissive)"
        " FROM pg_class c WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace"
    ).fetchall()
    secured = {str(row[0]) for row in rows if row[1] and row[2] and row[3] == 1}
    assert len(secured) >= 8
    assert tables(admin) - secured == TENANT_BLIND_TABLES


def test_every_primary_key_and_unique_index_of_a_tenant_s_table_begins_with_the_tenant(
    admin: psycopg.Connection[tuple[object, ...]],
) -> None:
    rows = admin.execute(
        "SELECT c.relname, a.attname FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid"
        " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]"
        " WHERE i.indisunique AND c.relnamespace = 'public'::regnamespace"
    ).fetchall()
    first = [(str(table), column) for table, column in rows if str(table) in tables(admin) - TENANT_BLIND_TABLES]
    assert first
    assert [entry for entry in first if entry[1] != "tenant_id"] == []


def test_every_foreign_key_between_tenant_tables_carries_the_tenant(
    admin: psycopg.Connection[tuple[object, ...]],
) -> None:
    rows = admin.execute(
        "SELECT conrelid::regclass::text, confrelid::regclass::text,"
        " ARRAY(SELECT attname FROM pg_attribute WHERE attrelid = conrelid AND attnum = ANY(conkey))"
        " FROM pg_constraint WHERE contype = 'f'"
    ).fetchall()
    keys = [row for row in rows if row[0] in tables(admin)]
    assert len(keys) >= 15
    assert [row for row in keys if "tenant_id" not in row[2]] == []  # type: ignore[operator]


def test_the_application_role_can_only_add_to_and_read_the_trail(
    admin: psycopg.Connection[tuple[object, ...]],
) -> None:
    rows = admin.execute(
        "SELECT privilege_type FROM information_schema.role_table_grants"
        " WHERE grantee = 'memvault_app' AND table_name = 'audit'"
    )
    assert {row[0] for row in rows} == {"SELECT", "INSERT"}


def test_without_a_tenant_nothing_is_seen_and_nothing_can_be_written(database: Postgres) -> None:
    with psycopg.connect(database.app) as connection:
        for table in (
            "memories",
            "subjects",
            "history",
            "events",
            "messages",
            "audit",
            "api_keys",
            "idempotency",
            "identities",
        ):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)  # type: ignore[arg-type]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(
                "INSERT INTO subjects (tenant_id, id, kind, name_mac, name, created_at)"
                " VALUES (gen_random_uuid(), gen_random_uuid(), 'user', '', '', now())"
            )


def test_the_tables_in_code_are_the_tables_in_the_database(database: Postgres) -> None:
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(database.owner), poolclass=NullPool)

    def ours(name: str | None, kind: str, parents: object) -> bool:
        return kind != "table" or not (name or "").startswith(("procrastinate_", "alembic_"))

    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": ours})
        assert compare_metadata(context, SQLModel.metadata) == []


def test_the_schema_goes_down_and_up_again(database: Postgres, admin: psycopg.Connection[tuple[object, ...]]) -> None:
    assert downgrade(database.owner, app_role="memvault_app", revision="base") == "base"
    assert tables(admin) == {"alembic_version"}
    functions = admin.execute("SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace").fetchone()
    assert functions == (0,)
    assert upgrade(database.owner, app_role="memvault_app") == head()


def test_a_schema_of_another_release_is_refused_with_what_to_do(
    database: Postgres, admin: psycopg.Connection[tuple[object, ...]]
) -> None:
    app = Database(database.app)
    try:
        with app.tenant_blind() as connection:
            check_schema(connection)
        admin.execute("UPDATE alembic_version SET version_num = '9999'")
        with app.tenant_blind() as connection, pytest.raises(ConfigurationError, match="install a newer Memvault"):
            check_schema(connection)
        admin.execute("DELETE FROM alembic_version")
        with app.tenant_blind() as connection, pytest.raises(ConfigurationError, match="run `memvault migrate`"):
            check_schema(connection)
    finally:
        app.close()


@pytest.mark.parametrize(
    ("member_of", "told"),
    [("memvault_owner", "owns the tables"), ("test_bypass", "is a member of"), ("test_super", "is a member of")],
)
def test_a_role_that_may_become_one_that_is_not_bound_is_refused(
    member_of: str, told: str, database: Postgres, admin: psycopg.Connection[tuple[object, ...]]
) -> None:
    if member_of != "memvault_owner":
        admin.execute(f"CREATE ROLE {member_of} {'BYPASSRLS' if member_of == 'test_bypass' else 'SUPERUSER'}")  # type: ignore[arg-type]
    admin.execute(f"GRANT {member_of} TO memvault_app")  # type: ignore[arg-type]
    unsafe = Database(database.app)
    try:
        with pytest.raises(ConfigurationError, match=rf"database\.url: the role memvault_app {told}"):
            unsafe.check_role()
    finally:
        unsafe.close()
        admin.execute(f"REVOKE {member_of} FROM memvault_app")  # type: ignore[arg-type]
        if member_of != "memvault_owner":
            admin.execute(f"DROP ROLE {member_of}")  # type: ignore[arg-type]


def test_every_policy_compares_the_row_s_tenant_with_the_transaction_s(
    admin: psycopg.Connection[tuple[object, ...]],
) -> None:
    rows = admin.execute(
        "SELECT polrelid::regclass::text, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)"
        " FROM pg_policy"
    ).fetchall()
    assert len(rows) >= 8
    for table, seen, written in rows:
        for expression in (str(seen), str(written)):
            assert "tenant_id = " in expression, table
            assert "app.tenant" in expression, table
            assert " OR " not in expression, table


@pytest.mark.parametrize("role", ["admin", "owner", "bypass"])
def test_a_role_that_row_level_security_does_not_bind_is_refused(
    role: str, database: Postgres, admin: psycopg.Connection[tuple[object, ...]]
) -> None:
    dsn = {"admin": database.admin, "owner": database.owner, "bypass": database.app}[role]
    if role == "bypass":
        admin.execute("ALTER ROLE memvault_app BYPASSRLS")
    try:
        unsafe = Database(dsn)
        with pytest.raises(ConfigurationError, match=r"database\.url"):
            unsafe.check_role()
        unsafe.close()
    finally:
        admin.execute("ALTER ROLE memvault_app NOBYPASSRLS")


def test_every_table_with_a_tenant_or_sealed_content_says_how_its_rows_leave(database: Postgres) -> None:
    app = Database(database.app)
    try:
        with app.tenant_blind() as connection:
            assert undeclared(connection) == [], "declare() an Eraser, or keep() it: service/storage/erasers.py"
    finally:
        app.close()
    assert all(len(reason) > 20 for reason in kept_tables().values())


def test_an_eraser_knows_every_column_of_ids_of_its_table(admin: psycopg.Connection[tuple[object, ...]]) -> None:
    rows = admin.execute(
        "SELECT c.relname, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
        " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0"
        " AND a.atttypid IN ('uuid'::regtype, 'uuid[]'::regtype) AND a.attname NOT IN ('tenant_id', 'id')"
    ).fetchall()
    known = {one.name: {*one.subjects, *one.parents, *one.other} for one in erasers()}
    assert [row for row in rows if str(row[0]) in known and row[1] not in known[str(row[0])]] == []


def test_a_table_without_an_eraser_is_found(database: Postgres, admin: psycopg.Connection[tuple[object, ...]]) -> None:
    admin.execute("CREATE TABLE notes (id uuid PRIMARY KEY, content bytea)")
    admin.execute("CREATE TABLE marks (id uuid PRIMARY KEY, tenant_id uuid)")
    app = Database(database.app)
    try:
        with app.tenant_blind() as connection:
            assert undeclared(connection) == ["marks", "notes"]
    finally:
        app.close()
