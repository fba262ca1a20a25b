"""The roles of the PostgreSQL that the chart runs, made by psql on a real server: one migrates, another serves."""

from __future__ import annotations

import psycopg
import pytest

from service.errors import ConfigurationError
from service.migrations.runner import upgrade
from service.storage.database import Database
from tests.deploy.conftest import Release

pytestmark = pytest.mark.integration


def elsewhere(url: str, database: str) -> str:
    """The same role on another database."""
    head, _, place = url.partition("?")
    return f"{head.rpartition('/')[0]}/{database}?{place}"


def test_the_owner_migrates_and_the_application_is_bound(release: Release) -> None:
    """Neither is a superuser, and the application role owns nothing: else the service would not start."""
    upgrade(release.secrets["owner-url"], app_role="memvault_app")
    database = Database(release.secrets["url"], pool_size=2)
    try:
        database.check_role()
    finally:
        database.close()
    with (
        pytest.raises(psycopg.errors.InsufficientPrivilege),
        psycopg.connect(release.secrets["url"]) as connection,
    ):
        connection.execute("CREATE TABLE mine (id int)")


def test_the_owner_would_be_refused_as_the_application(release: Release) -> None:
    upgrade(release.secrets["owner-url"], app_role="memvault_app")
    database = Database(release.secrets["owner-url"], pool_size=2)
    try:
        with pytest.raises(ConfigurationError):
            database.check_role()
    finally:
        database.close()


def test_the_keys_are_in_a_database_that_the_others_cannot_enter(release: Release) -> None:
    with psycopg.connect(release.secrets["keyring-url"]) as connection:
        connection.execute("CREATE TABLE probe (id int)")
        connection.rollback()
    for key, database in (("url", "memvault_keys"), ("owner-url", "memvault_keys"), ("keyring-url", "memvault")):
        with pytest.raises(psycopg.OperationalError, match="CONNECT"):
            psycopg.connect(elsewhere(release.secrets[key], database))


def test_no_role_is_more_than_it_needs(release: Release) -> None:
    with psycopg.connect(release.superuser) as connection:
        rows = connection.execute(
            "SELECT rolname, rolsuper OR rolbypassrls OR rolcreatedb OR rolcreaterole OR rolreplication FROM pg_roles"
            " WHERE rolname LIKE 'memvault%' ORDER BY 1"
        ).fetchall()
    assert rows == [("memvault_app", False), ("memvault_keys", False), ("memvault_owner", False)]
