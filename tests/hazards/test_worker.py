"""Hazards of procrastinate's worker: threads, work that comes round by the clock, and jobs that nobody runs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from service.queue import tasks
from service.queue.tasks import Handler, Worker
from tests.conftest import Postgres
from tests.process.memvault import eventually

pytestmark = pytest.mark.integration

_JOB = "INSERT INTO procrastinate_jobs (queue_name, task_name, status, queueing_lock, lock, scheduled_at)"


@pytest.fixture
def admin(database: Postgres) -> Iterator[psycopg.Connection[Any]]:
    """A superuser's connection, each statement committed at once."""
    with psycopg.connect(database.admin, autocommit=True) as connection:
        yield connection


@contextmanager
def working(
    database: Postgres,
    handlers: dict[str, Handler],
    periodic: dict[str, tuple[str, Callable[[int], None]]] | None = None,
    *,
    concurrency: int,
    poll_interval: float = 0.1,
) -> Iterator[None]:
    """Run a worker for the block."""
    worker = Worker(
        database.app,
        handlers,
        periodic or {},
        concurrency=concurrency,
        poll_interval=poll_interval,
        stalled_seconds=30,
        stop_seconds=30,
    )
    worker.start()
    try:
        yield
    finally:
        worker.stop()


def defer(admin: psycopg.Connection[Any], task: str, *, times: int = 1, lock: str | None = None) -> None:
    """Put jobs of a task into the queue."""
    jobs = f"{_JOB} SELECT 'memvault', %s, 'todo', NULL, %s, NULL FROM generate_series(1, %s)"
    admin.execute(jobs, [task, lock, times])  # type: ignore[arg-type]


def test_as_many_jobs_run_at_a_time_as_the_settings_say(database: Postgres, admin: psycopg.Connection[Any]) -> None:
    # More than the threads that an event loop has by itself.
    many = min(32, (os.cpu_count() or 1) + 4) + 2
    together = threading.Barrier(many + 1)

    def meet() -> None:
        together.wait(60)

    with working(database, {"meet": meet}, concurrency=many):
        defer(admin, "meet", times=many)
        together.wait(30)
    assert not together.broken


def test_what_waits_for_a_lock_begins_when_it_is_free(database: Postgres, admin: psycopg.Connection[Any]) -> None:
    done = threading.Semaphore(0)

    def step() -> None:
        time.sleep(0.2)
        done.release()

    # The queue tells of jobs that come, and not of those that may begin since another one ended: by the clock alone
    # these would take a minute and a half.
    with working(database, {"step": step}, concurrency=2, poll_interval=30):
        defer(admin, "step", times=4, lock="one after the other")
        eventually(lambda: done.acquire(blocking=False))
        began = time.monotonic()
        for _ in range(3):
            assert done.acquire(timeout=60)
        # Room for one end that falls into a look of the worker, and waits for the next.
        assert time.monotonic() - began < 45


def test_work_that_comes_round_by_the_clock_does_not_overlap(
    database: Postgres, admin: psycopg.Connection[Any]
) -> None:
    begun: list[int] = []
    ended, passed = threading.Event(), threading.Event()

    def tick(timestamp: int) -> None:
        begun.append(timestamp)
        ended.wait(60)

    # The last of six fields are seconds.
    with working(database, {"pass": passed.set}, {"tick": ("* * * * * *", tick)}, concurrency=3):
        try:
            due = "SELECT 1 FROM procrastinate_jobs WHERE task_name = 'tick' AND status = 'todo'"
            eventually(lambda: begun and admin.execute(due).fetchall())
            # Jobs are taken up in their order: the second one would be by the time that this one is.
            defer(admin, "pass")
            assert passed.wait(30)
            assert len(begun) == 1
        finally:
            ended.set()
        eventually(lambda: len(begun) > 1)


def test_a_job_that_cannot_be_put_back_holds_up_no_other(
    database: Postgres, admin: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "_SIGNS", 100)
    done, never = threading.Event(), {"tick": ("0 0 1 1 *", lambda timestamp: None)}
    # A worker that is gone left both; the first one's next of its kind waits by now, and only one may.
    admin.execute(f"{_JOB} VALUES ('memvault', 'tick', 'doing', 'tick', 'tick', NULL)")  # type: ignore[arg-type]
    admin.execute(f"{_JOB} VALUES ('memvault', 'finish', 'doing', NULL, NULL, NULL)")  # type: ignore[arg-type]
    admin.execute(f"{_JOB} VALUES ('memvault', 'tick', 'todo', 'tick', 'tick', now() + interval '1 hour')")  # type: ignore[arg-type]
    with working(database, {"finish": done.set}, never, concurrency=1):
        assert done.wait(30)
        left = "SELECT task_name, status::text FROM procrastinate_jobs"
        eventually(lambda: admin.execute(left).fetchall() == [("tick", "todo")])
