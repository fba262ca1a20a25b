"""Lets statements without rows wait for the next one, and sends them with it in one round trip to Postgres.

A transaction begins with two of them (BEGIN and the tenant), and ends with some (rows of the history, the outbox and
the trail, and COMMIT); each trip alone takes as long as what is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine import Connection

#: The name of the dialect in a URL of SQLAlchemy's.
NAME: Final = "memvaultpipelining"
#: Execution options of a statement that may wait: an insert of one row whose result nobody looks at, and after which
#: nothing is done that a failing transaction does not undo. Its failure is that of the statement that it goes with, or
#: of the commit. Inside a savepoint nothing waits.
MAY_WAIT: Final = {"may_wait": True}

registry.register(f"postgresql.{NAME}", __name__, "PipeliningDialect")


class PipeliningConnection(psycopg.Connection[Any]):
    """A connection in autocommit mode: the dialect begins transactions itself, so that BEGIN can wait too."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self.waiting: list[tuple[Any, Any]] = []

    def send(self, last: Callable[[], Any]) -> None:
        """Execute what waits, then `last`, in one round trip."""
        waiting, self.waiting = self.waiting, []
        if not waiting:
            last()
            return
        with self.pipeline():
            for statement, parameters in waiting:
                self.execute(statement, parameters)
            last()

    def commit(self) -> None:
        """Commit, or raise when a statement has failed: Postgres would roll back and call that done."""
        if self.pgconn.transaction_status == TransactionStatus.INERROR:
            raise psycopg.errors.InFailedSqlTransaction("a statement of the transaction has failed")
        super().commit()


def send_waiting(connection: Connection) -> None:
    """Execute what waits: before something else uses the driver's connection, or what cannot be undone is done."""
    driver: Any = connection.connection.driver_connection
    if driver.waiting:
        # In the trip of another, so that what fails is told like the failure of any statement.
        connection.exec_driver_sql("SELECT 1")


class PipeliningDialect(PGDialect_psycopg):
    """SQLAlchemy's dialect for psycopg, over connections that are `PipeliningConnection`."""

    supports_statement_cache = True

    def do_begin(self, dbapi_connection: Any) -> None:
        """Begin when the first statement is sent."""
        dbapi_connection.waiting.append(("BEGIN", None))

    def do_commit(self, dbapi_connection: Any) -> None:
        """Commit together with what waits; a transaction without a statement was none."""
        if dbapi_connection.waiting == [("BEGIN", None)]:
            dbapi_connection.waiting.clear()
        elif dbapi_connection.waiting:
            dbapi_connection.send(lambda: dbapi_connection.execute("COMMIT"))
        else:
            dbapi_connection.commit()

    def do_rollback(self, dbapi_connection: Any) -> None:
        """Roll back what was sent, and forget what waits."""
        dbapi_connection.waiting.clear()
        dbapi_connection.rollback()

    def do_execute(self, cursor: Any, statement: Any, parameters: Any, context: Any = None) -> None:
        """Execute a statement, or let it wait."""
        connection = cursor.connection
        if _may_wait(context):
            connection.waiting.append((statement, parameters))
        elif isinstance(cursor, psycopg.ServerCursor):
            # It takes several trips by itself.
            connection.send(lambda: None)
            cursor.execute(statement, parameters)
        else:
            connection.send(lambda: cursor.execute(statement, parameters))

    def do_execute_no_params(self, cursor: Any, statement: Any, context: Any = None) -> None:
        """Execute a statement without parameters."""
        self.do_execute(cursor, statement, None, context)

    def do_executemany(self, cursor: Any, statement: Any, parameters: Any, context: Any = None) -> None:
        """Execute a statement for each of several rows, or let it wait if it is one."""
        if len(parameters) == 1:
            self.do_execute(cursor, statement, parameters[0], context)
        else:
            # The driver has a pipeline of its own for these.
            cursor.connection.send(lambda: None)
            cursor.executemany(statement, parameters)


def _may_wait(context: Any) -> bool:
    if context is None or not context.execution_options.get("may_wait"):
        return False
    # What is sent behind a statement that fails counts as prepared for the driver, and after a savepoint that stays so.
    if context.root_connection.in_nested_transaction():
        return False
    return not getattr(context.compiled, "effective_returning", None)
