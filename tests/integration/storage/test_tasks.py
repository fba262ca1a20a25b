"""One process at a time does a task, whatever the clocks of those that ask say."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest

from service import clock
from service.storage.database import Database
from service.storage.tasks import Tasks, TaskState
from tests.conftest import Postgres

pytestmark = [pytest.mark.integration, pytest.mark.postgres_suite]

STALE = timedelta(minutes=2)


@pytest.fixture
def tasks(database: Postgres) -> Iterator[Tasks]:
    """Tasks, as the application role."""
    app = Database(database.app, pool_size=2)
    yield Tasks(app)
    app.close()


def off(monkeypatch: pytest.MonkeyPatch, by: timedelta) -> None:
    """Let the clock of this process be wrong."""
    now = clock.now
    monkeypatch.setattr(clock, "now", lambda: now() + by)


def aged(database: Postgres) -> None:
    """Let all tasks have been silent for longer than one may be."""
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute("UPDATE tasks SET updated_at = updated_at - interval '3 minutes'")


def test_a_task_that_a_process_has_left_is_taken_by_another(tasks: Tasks, database: Postgres) -> None:
    first = tasks.claim("fill", stale_after=STALE)
    assert first is not None
    assert tasks.claim("fill", stale_after=STALE) is None
    aged(database)
    tasks.progress(first, 7)
    assert tasks.claim("fill", stale_after=STALE) is None
    aged(database)
    second = tasks.claim("fill", stale_after=STALE)
    assert second is not None
    assert [tasks.get(one).state for one in (first, second)] == [TaskState.FAILED, TaskState.RUNNING]


@pytest.mark.parametrize("of", ["who asks", "who works"])
def test_clocks_that_differ_take_no_task_from_who_works_at_it(
    of: str, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An index that two processes fill at once loses what either of them throws away."""
    with monkeypatch.context() as patched:
        if of == "who works":
            off(patched, timedelta(minutes=-5))
        working = tasks.claim("fill", stale_after=STALE)
        assert working is not None
        tasks.progress(working, 7)
    if of == "who asks":
        off(monkeypatch, timedelta(minutes=5))
    assert tasks.claim("fill", stale_after=STALE) is None
    assert tasks.get(working).state is TaskState.RUNNING


def test_a_task_of_a_process_whose_clock_was_ahead_is_taken_once_it_is_left(
    tasks: Tasks, database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        off(patched, timedelta(days=1))
        left = tasks.claim("fill", stale_after=STALE)
        assert left is not None
        tasks.progress(left, 7)
    aged(database)
    assert tasks.claim("fill", stale_after=STALE) is not None
