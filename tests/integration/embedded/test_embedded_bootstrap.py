"""The database and its roles: what each may do, and that making them is safe to repeat."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from service.storage.embedded import Credentials, EmbeddedPostgres, EmbeddedPostgresError, Server, ensure_database
from tests.integration.embedded.installations import FAST

Denied = psycopg.errors.InsufficientPrivilege


@pytest.fixture
def server(cluster: Path) -> Iterator[Server]:
    embedded = EmbeddedPostgres(cluster, settings=FAST)
    yield embedded.start()
    embedded.stop()


@pytest.fixture
def credentials(server: Server, cluster: Path) -> Credentials:
    return ensure_database(server, folder=cluster)


def run(dsn: str, *statements: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement)  # type: ignore[arg-type]
        return cursor.fetchall() if cursor.description else []


def test_the_application_is_bound_and_owns_nothing(credentials: Credentials) -> None:
    attributes = run(
        credentials.app_dsn,
        "SELECT rolsuper, rolbypassrls, rolcreatedb, rolcreaterole, rolreplication FROM pg_roles"
        " WHERE rolname = current_user",
    )
    assert attributes == [(False,) * 5]
    memberships = "SELECT 1 FROM pg_auth_members WHERE member = 'memvault_app'::regrole"
    assert run(credentials.app_dsn, memberships) == []
    for forbidden in (
        "CREATE TABLE public.mine ()",
        "CREATE SCHEMA mine",
        "CREATE TEMP TABLE mine ()",
        "SET ROLE memvault_owner",
        "SET ROLE memvault_maintenance",
        "CHECKPOINT",
        "SELECT pg_switch_wal()",
        "SET log_statement = 'all'",
    ):
        with pytest.raises(Denied):
            run(credentials.app_dsn, forbidden)


def test_row_level_security_binds_the_application_and_forced_also_the_owner(credentials: Credentials) -> None:
    run(
        credentials.owner_dsn,
        "CREATE TABLE notes (tenant text)",
        "INSERT INTO notes VALUES ('a'), ('b')",
        "ALTER TABLE notes ENABLE ROW LEVEL SECURITY",
        "ALTER TABLE notes FORCE ROW LEVEL SECURITY",
        "CREATE POLICY own ON notes USING (tenant = current_setting('app.tenant', true))",
        "GRANT SELECT ON notes TO memvault_app",
    )
    for dsn in (credentials.app_dsn, credentials.owner_dsn):
        assert run(dsn, "SELECT count(*) FROM notes") == [(0,)]
        assert run(dsn, "SET app.tenant = 'a'", "SELECT tenant FROM notes") == [("a",)]


def test_maintenance_may_rewrite_and_switch_but_not_read(credentials: Credentials) -> None:
    run(credentials.owner_dsn, "CREATE TABLE notes (body text)", "INSERT INTO notes VALUES ('x')")
    before = run(credentials.owner_dsn, "SELECT pg_relation_filenode('notes')")
    run(credentials.maintenance_dsn, "VACUUM (FULL) notes", "CHECKPOINT", "SELECT pg_switch_wal()")
    assert run(credentials.owner_dsn, "SELECT pg_relation_filenode('notes')") != before
    for forbidden in ("SELECT * FROM notes", "DROP TABLE notes", "SET ROLE memvault_owner"):
        with pytest.raises(Denied):
            run(credentials.maintenance_dsn, forbidden)


def test_a_role_that_nobody_named_cannot_connect(server: Server, credentials: Credentials) -> None:
    run(server.superuser_dsn(), "CREATE ROLE stranger LOGIN PASSWORD 'known'")
    for database in ("memvault", "postgres", "template1"):
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            run(server.dsn(dbname=database, user="stranger", password="known"), "SELECT 1")


def test_repeating_changes_nothing_and_mends_roles(server: Server, cluster: Path, credentials: Credentials) -> None:
    run(
        server.superuser_dsn(),
        "ALTER ROLE memvault_app SUPERUSER BYPASSRLS",
        "GRANT memvault_owner TO memvault_app",
        "GRANT pg_maintain, pg_read_all_data TO memvault_app",
    )
    assert ensure_database(server, folder=cluster) == credentials
    test_the_application_is_bound_and_owns_nothing(credentials)


def test_lost_passwords_are_made_anew(server: Server, cluster: Path, credentials: Credentials) -> None:
    (cluster / "credentials.json").unlink()
    fresh = ensure_database(server, folder=cluster)
    assert fresh.app_dsn != credentials.app_dsn
    for dsn in (fresh.owner_dsn, fresh.app_dsn, fresh.maintenance_dsn):
        assert run(dsn, "SELECT current_database()") == [("memvault",)]
    with pytest.raises(psycopg.OperationalError, match="password"):
        run(credentials.app_dsn, "SELECT 1")


def test_a_damaged_password_file_is_named(server: Server, cluster: Path, credentials: Credentials) -> None:
    (cluster / "credentials.json").write_text("{")
    with pytest.raises(EmbeddedPostgresError, match=str(cluster / "credentials.json")):
        ensure_database(server, folder=cluster)


def test_several_at_once_agree(server: Server, cluster: Path) -> None:
    seen: list[Credentials] = []
    threads = [threading.Thread(target=lambda: seen.append(ensure_database(server, folder=cluster))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 4
    assert len(set(seen)) == 1
    assert run(seen[0].app_dsn, "SELECT current_user") == [("memvault_app",)]
