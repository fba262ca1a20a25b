"""What an error of Postgres is told as: an outage, a transaction that gave in, or a defect that is none of these."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from sqlalchemy import Connection, bindparam, text
from sqlalchemy.exc import DBAPIError

from service import clock
from service.errors import ConfigurationError, RecordBusy, RecordUnavailable
from service.scope import Scope, TenantId, service_principal
from service.storage.database import Database
from tests.conftest import Postgres

pytestmark = [pytest.mark.integration, pytest.mark.postgres_suite]


@pytest.fixture
def app(database: Postgres) -> Iterator[Database]:
    """The doorway, as the application role."""
    app = Database(database.app, pool_size=4)
    yield app
    app.close()


@pytest.fixture
def scope() -> Scope:
    """A tenant's scope."""
    return Scope.of(service_principal(TenantId(clock.new_random_id())))


def cut(connection: Connection, database: Postgres) -> None:
    """End the server's side of a connection, as a restart or a network does."""
    pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    with psycopg.connect(database.admin, autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])


def test_a_deadlock_is_told_as_one_and_the_same_work_succeeds_again(
    app: Database, scope: Scope, database: Postgres
) -> None:
    with psycopg.connect(database.admin, autocommit=True) as admin:
        admin.execute("CREATE TABLE pair AS SELECT n, 0 AS count FROM generate_series(1, 2) n")
        admin.execute("GRANT ALL ON pair TO memvault_app")
    met = threading.Barrier(2)
    add = text("UPDATE pair SET count = count + 1 WHERE n = :n")

    def in_order(first: int) -> RecordBusy | None:
        try:
            with app.transaction(scope) as connection:
                connection.execute(add, {"n": first})
                met.wait(10)
                connection.execute(add, {"n": 3 - first})
        except RecordBusy as busy:
            return busy
        return None

    with ThreadPoolExecutor(2) as pool:
        (busy,) = [one for one in pool.map(in_order, (1, 2)) if one is not None]
    assert busy.code == "record_busy"
    assert str(busy.__cause__) == "SQLSTATE 40P01"
    with app.transaction(scope) as connection:
        assert connection.execute(text("SELECT sum(count) FROM pair")).scalar() == 2


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Etc/GMT+12", "UTC"])
def test_every_moment_of_the_calendar_is_read_back_whatever_the_zone_of_the_server(
    zone: str, scope: Scope, database: Postgres
) -> None:
    options = f"-c timezone={zone} -c statement_timeout=12345"
    app = Database(make_conninfo(database.app, options=options), pool_size=1)
    try:
        with app.transaction(scope) as connection:
            for moment in (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)):
                assert connection.execute(text("SELECT cast(:at AS timestamptz)"), {"at": moment}).scalar() == moment
            # What else the URL asks for stays.
            assert connection.execute(text("SHOW statement_timeout")).scalar() == "12345ms"
    finally:
        app.close()


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("40001", RecordBusy),
        ("40P01", RecordBusy),
        ("08006", RecordUnavailable),
        ("53100", RecordUnavailable),
        ("57P03", RecordUnavailable),
        ("58030", RecordUnavailable),
        ("25006", RecordUnavailable),
        ("42501", RecordUnavailable),
        ("55P03", RecordBusy),
        ("23505", DBAPIError),
        ("P0001", DBAPIError),
    ],
)
def test_a_state_is_told_as_what_it_is(state: str, told: type[Exception], app: Database, scope: Scope) -> None:
    with pytest.raises(told) as raised, app.transaction(scope) as connection:
        connection.execute(text(f"DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '{state}'; END $$"))
    assert type(raised.value) is told or told is DBAPIError


def test_too_many_parameters_are_a_defect_and_no_outage(app: Database, scope: Scope) -> None:
    query = text("SELECT 1 WHERE 1 IN :many").bindparams(bindparam("many", list(range(70_000)), expanding=True))
    with pytest.raises(DBAPIError), app.transaction(scope) as connection:
        connection.execute(query)
    app.ping()


def test_a_lost_connection_is_an_outage_and_the_next_one_works(app: Database, scope: Scope, database: Postgres) -> None:
    with pytest.raises(RecordUnavailable), app.transaction(scope) as connection:  # noqa: PT012 - cut, then used
        cut(connection, database)
        connection.execute(text("SELECT 1"))
    app.ping()


def test_a_connection_that_is_lost_before_the_commit_is_an_outage(
    app: Database, scope: Scope, database: Postgres
) -> None:
    with pytest.raises(RecordUnavailable), app.transaction(scope) as connection:
        cut(connection, database)
    app.ping()


def test_a_server_that_is_not_there_is_an_outage(database: Postgres, scope: Scope) -> None:
    for wrong in ({"port": "1"}, {"password": "wrong", "user": "nobody"}, {"dbname": "no_such_database"}):
        away = Database(make_conninfo(database.app, **wrong))
        with pytest.raises(RecordUnavailable), away.transaction(scope):
            pytest.fail("there is no connection")
        away.close()


def test_a_url_that_is_none_names_the_setting() -> None:
    with pytest.raises(ConfigurationError, match=r"database\.url"):
        Database("postgresql://host:port:port/?what=ever")
