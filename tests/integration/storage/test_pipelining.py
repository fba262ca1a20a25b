"""Statements that wait for the next one: they go in its trip, in their order, and what they fail with is told."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus
from sqlalchemy import Column, Connection, Integer, MetaData, String, Table, text
from sqlalchemy.exc import DBAPIError, IntegrityError, ProgrammingError

from service import clock
from service.errors import RecordUnavailable
from service.observability.logs import configure_logs
from service.scope import Scope, TenantId, service_principal
from service.storage.database import Database
from service.storage.pipelining import MAY_WAIT, send_waiting
from tests.conftest import Postgres

pytestmark = [pytest.mark.integration, pytest.mark.postgres_suite]

INSERT = "INSERT INTO waits VALUES (%(n)s, current_setting('app.tenant'))"


@pytest.fixture
def app(database: Postgres) -> Iterator[Database]:
    """The doorway, with one connection, and a table of numbers."""
    with psycopg.connect(database.admin, autocommit=True) as admin:
        admin.execute("CREATE TABLE waits (n int PRIMARY KEY, tenant text)")
        admin.execute("GRANT ALL ON waits TO memvault_app")
    app = Database(database.app, pool_size=1)
    yield app
    app.close()


@pytest.fixture
def scope() -> Scope:
    """A tenant's scope."""
    return Scope.of(service_principal(TenantId(clock.new_random_id())))


def driver(connection: Connection) -> Any:
    return connection.connection.driver_connection


def insert(connection: Connection, number: object, *, waits: bool = True) -> None:
    connection.exec_driver_sql(INSERT, {"n": number}, execution_options=MAY_WAIT if waits else {})


def stored(database: Postgres) -> list[tuple[int, str]]:
    with psycopg.connect(database.admin) as admin:
        return admin.execute("SELECT n, tenant FROM waits ORDER BY n").fetchall()


def test_what_waits_goes_with_the_next_statement_and_the_commit(
    app: Database, scope: Scope, database: Postgres
) -> None:
    tenant = str(scope.tenant_id)
    with app.transaction(scope) as connection:
        insert(connection, 1)
        # Not even the transaction has begun.
        assert driver(connection).pgconn.transaction_status == TransactionStatus.IDLE
        assert connection.execute(text("SELECT n FROM waits")).scalars().all() == [1]
        assert driver(connection).waiting == []
        insert(connection, 2)
        insert(connection, 3)
        assert len(driver(connection).waiting) == 2
        assert stored(database) == []
    assert stored(database) == [(1, tenant), (2, tenant), (3, tenant)]


def test_a_transaction_whose_every_statement_waits_is_committed(
    app: Database, scope: Scope, database: Postgres
) -> None:
    with app.transaction(scope) as connection:
        insert(connection, 1)
    assert stored(database) == [(1, str(scope.tenant_id))]


def test_a_transaction_without_a_statement_is_none(app: Database, scope: Scope) -> None:
    with app.tenant_blind() as connection:
        pass
    with app.transaction(scope) as connection:
        assert connection.execute(text("SELECT current_setting('app.tenant')")).scalar() == str(scope.tenant_id)
    with app.tenant_blind() as connection:
        assert not connection.execute(text("SELECT current_setting('app.tenant', true)")).scalar()


@pytest.mark.parametrize("goes_with", ["a statement", "the commit", "send_waiting"])
def test_what_fails_while_it_waits_undoes_everything(
    goes_with: str, app: Database, scope: Scope, database: Postgres
) -> None:
    def fail() -> None:
        with app.transaction(scope) as connection:
            insert(connection, 1, waits=False)
            insert(connection, 1)
            insert(connection, 2)
            if goes_with == "a statement":
                connection.execute(text("SELECT 1"))
            elif goes_with == "send_waiting":
                send_waiting(connection)

    with pytest.raises(IntegrityError):
        fail()
    assert stored(database) == []
    # The only connection is as good as new.
    with app.transaction(scope) as connection:
        insert(connection, 3)
    assert [number for number, _ in stored(database)] == [3]


def test_what_waits_is_forgotten_with_its_transaction(app: Database, scope: Scope, database: Postgres) -> None:
    def refuse() -> None:
        with app.transaction(scope) as connection:
            insert(connection, 1)
            raise LookupError

    with pytest.raises(LookupError):
        refuse()
    with app.transaction(scope) as connection:
        insert(connection, 2)
        connection.rollback()
    with app.transaction(scope) as connection:
        insert(connection, 3)
    assert [number for number, _ in stored(database)] == [3]


def test_nothing_waits_in_a_savepoint(app: Database, scope: Scope, database: Postgres) -> None:
    def twice(connection: Connection) -> None:
        with connection.begin_nested():
            insert(connection, 2)
            assert driver(connection).waiting == []
            insert(connection, 1)

    # Thrice, so that the driver has prepared all of it.
    for number in (10, 20, 30):
        with app.transaction(scope) as connection:
            insert(connection, number)
            with suppress(IntegrityError):
                insert(connection, 1)
                twice(connection)
            insert(connection, number + 1)
            connection.execute(text("DELETE FROM waits WHERE n = 1"))
    assert [number for number, _ in stored(database)] == [10, 11, 20, 21, 30, 31]


def test_a_connection_that_is_lost_in_a_savepoint_is_an_outage(app: Database, scope: Scope, database: Postgres) -> None:
    def lose() -> None:
        with app.transaction(scope) as connection, connection.begin_nested():
            pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
            with psycopg.connect(database.admin, autocommit=True) as admin:
                admin.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])

    with pytest.raises(RecordUnavailable):
        lose()
    app.ping()


def test_a_failure_that_was_passed_over_is_no_commit(app: Database, scope: Scope, database: Postgres) -> None:
    def pass_over() -> None:
        with app.transaction(scope) as connection:
            insert(connection, 1, waits=False)
            insert(connection, 1)
            with suppress(ProgrammingError):
                # Cannot be sent; what waited is sent, and fails unheard.
                insert(connection, object(), waits=False)

    with pytest.raises(DBAPIError):
        pass_over()
    assert stored(database) == []


def test_a_statement_whose_result_is_needed_does_not_wait(app: Database, scope: Scope, database: Postgres) -> None:
    table = Table("waits", MetaData(), Column("n", Integer, primary_key=True), Column("tenant", String))
    with app.transaction(scope) as connection:
        made = connection.execute(table.insert().values(n=5).returning(table.c.n), execution_options=MAY_WAIT)
        assert made.scalar() == 5


def test_a_server_that_only_reads_is_an_outage_also_for_what_waited(app: Database, scope: Scope) -> None:
    def write() -> None:
        with app.transaction(scope) as connection:
            connection.execute(text("SET TRANSACTION READ ONLY"))
            insert(connection, 1)
            send_waiting(connection)

    with pytest.raises(RecordUnavailable):
        write()


def test_rows_that_are_fetched_step_by_step_come_after_what_waits(app: Database, scope: Scope) -> None:
    with app.transaction(scope) as connection:
        for number in range(5):
            insert(connection, number)
        steps = text("SELECT n FROM waits ORDER BY n").execution_options(yield_per=2)
        with connection.execute(steps) as rows:
            assert [row.n for row in rows] == [0, 1, 2, 3, 4]
        connection.execute(text("INSERT INTO waits VALUES (:n)"), [{"n": 7}, {"n": 8}])
        assert connection.execute(text("SELECT count(*) FROM waits")).scalar() == 7


def test_a_connection_that_is_lost_while_all_waits_is_an_outage(
    app: Database, scope: Scope, database: Postgres
) -> None:
    with app.transaction(scope) as connection:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    with psycopg.connect(database.admin, autocommit=True) as admin:
        admin.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])
    with pytest.raises(RecordUnavailable), app.transaction(scope) as connection:
        insert(connection, 1)
    with app.transaction(scope) as connection:
        insert(connection, 2)
    assert [number for number, _ in stored(database)] == [2]


def test_what_a_failure_hides_is_not_in_the_log(
    app: Database, scope: Scope, database: Postgres, capfd: pytest.CaptureFixture[str]
) -> None:
    """Where a parameter cannot be sent, what waited is sent nevertheless; Postgres quotes its values if it fails."""
    with psycopg.connect(database.admin, autocommit=True) as admin:
        admin.execute("ALTER TABLE waits ADD CHECK (n < 777000)")
    root = logging.getLogger()
    before, level = root.handlers[:], root.level

    def fail() -> None:
        with app.transaction(scope) as connection:
            insert(connection, 777123)
            insert(connection, object(), waits=False)

    configure_logs(level="debug", format="json")
    try:
        with pytest.raises(ProgrammingError) as raised:
            fail()
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    assert "777123" not in str(raised.value)
    assert "777123" not in "".join(capfd.readouterr())
    assert stored(database) == []
