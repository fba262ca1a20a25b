"""What is asked every minute, every hour or page by page finds its rows by an index, as the application asks it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, event, select
from sqlalchemy.dialects import postgresql

from service import clock
from service.clock import new_random_id
from service.memories import housekeeping
from service.scope import Caller
from service.storage.erasers import erase_subject
from service.storage.stored import Slice
from service.tenants.subjects import any_erasing
from service.wiring import Services

pytestmark = [pytest.mark.integration, pytest.mark.postgres_suite]


@pytest.fixture
def connection(services: Services, caller: Caller) -> Iterator[Connection]:
    """A transaction of the tenant in which no table is scanned whole where there is another way."""
    with services.installation.database.transaction(caller.scope) as connection:
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        connection.exec_driver_sql("SET LOCAL enable_bitmapscan = off")
        yield connection


def plan(connection: Connection, query: Any) -> str:
    """Return how the database would go about it."""
    compiled = query.compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True})
    return "\n".join(connection.exec_driver_sql(f"EXPLAIN {compiled}".replace("%", "%%")).scalars())


def sent(connection: Connection) -> list[str]:
    """Return the list that the plans of all further statements of this connection come to stand in."""
    plans: list[str] = []

    def note(_: object, cursor: Any, statement: str, parameters: Any, *more: object) -> None:
        if statement.startswith(("SELECT", "DELETE")):
            beside = cursor.connection.cursor()
            beside.execute(f"EXPLAIN {statement}", parameters)
            plans.append("\n".join(row[0] for row in beside.fetchall()))

    event.listen(connection, "before_cursor_execute", note)
    return plans


def test_notifications_that_ended_long_ago(services: Services, connection: Connection) -> None:
    told = plan(connection, select(services.jobs._deliveries.any_to_sweep()))
    assert "webhook_deliveries_ended" in told
    assert "updated_at <" in told


def test_who_is_being_erased(connection: Connection) -> None:
    assert "subjects_erasing" in plan(connection, select(any_erasing()))


def test_a_page_of_entities(services: Services, caller: Caller, connection: Connection) -> None:
    plans = sent(connection)
    services.installation.subjects.list(connection, caller.scope, part=Slice(100, 50))
    services.installation.subjects.count(connection)
    page, count = plans
    assert "subjects_by_time" in page
    assert "Sort" not in page
    assert "subjects_by_time" in count


def test_events_that_ended_long_ago(connection: Connection) -> None:
    plans = sent(connection)
    housekeeping.forget_old_events(connection, before=clock.now() - timedelta(days=90))
    assert len(plans) == 2
    assert all("created_at <" in told.partition("Index Cond")[2] for told in plans)


def test_what_is_somebody_s(caller: Caller, connection: Connection) -> None:
    """But for lists of ids, whose operators row-level security keeps from an index."""
    plans = sent(connection)
    erase_subject(connection, caller.scope, new_random_id(), limit=10)
    (of_history,) = (told for told in plans if "on history" in told)
    for subject in ("owner", "user", "agent", "app", "run"):
        assert f"using history_by_{subject} on history" in of_history
    assert "Seq Scan" not in of_history
