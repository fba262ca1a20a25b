"""A retention run whose process is killed is finished by whoever comes next; two that work at once do all once."""

from __future__ import annotations

import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from service import clock, wiring
from service.records import Message, NewMemories, SubjectNames
from service.retention import runs as runs_module
from service.retention.sweeping import RetentionJobs
from service.scope import Caller, TenantId
from service.settings import load_settings
from service.wiring import Services
from tests.conftest import Postgres, caller_of
from tests.integration.rules.conftest import SetRule
from tests.process.memvault import REPOSITORY, command, eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Stored:
    """What a tenant has, in the order in which a run looks at it, and what of it is due."""

    ids: list[UUID]
    old: set[UUID]


AddMany = Callable[[Caller, int], Stored]


@pytest.fixture
def add_many(services: Services, database: Postgres) -> AddMany:
    """Add many memories, of which two in three were stored 40 days ago."""

    def many(caller: Caller, count: int) -> Stored:
        ids: list[UUID] = []
        for start in range(0, count, 100):
            messages = [Message("user", f"m {number}") for number in range(start, min(count, start + 100))]
            new = NewMemories(messages, SubjectNames(user_id="alice"), infer=False)
            ids += [one.memory_id for one in services.adds.add(caller, caller.scope, new).results]
        assert len(ids) == count
        ids.sort()
        old = {one for number, one in enumerate(ids) if number % 3}
        with psycopg.connect(database.admin, autocommit=True) as connection:
            connection.execute(
                "UPDATE memories SET created_at = %(at)s, updated_at = %(at)s, ingested_at = %(at)s"
                " WHERE id = ANY(%(ids)s)",
                {"at": clock.now() - timedelta(days=40), "ids": list(old)},
            )
        return Stored(ids, old)

    return many


def present(database: Postgres, tenant: TenantId) -> set[UUID]:
    """The memories of a tenant that are there."""
    with psycopg.connect(database.admin) as connection:
        return {row[0] for row in connection.execute("SELECT id FROM memories WHERE tenant_id = %s", [tenant])}


def runs_of(database: Postgres, tenant: TenantId) -> list[tuple[Any, ...]]:
    """The tenant's runs: their state, what they looked at, what they deleted."""
    query = "SELECT status, seen, deleted, hidden FROM retention_runs WHERE tenant_id = %s ORDER BY started_at"
    with psycopg.connect(database.admin) as connection:
        return connection.execute(query, [tenant]).fetchall()


def deletions(database: Postgres, tenant: TenantId) -> Counter[UUID]:
    """How often the trail says of each memory that a run deleted it."""
    query = "SELECT unnest(target_ids) FROM audit WHERE tenant_id = %s AND event = 'memories:forgotten'"
    with psycopg.connect(database.admin) as connection:
        return Counter(row[0] for row in connection.execute(query, [tenant]))


class Commands:
    """Runs `memvault retention run` beside the services, on their database and keys."""

    def __init__(self, database: Postgres, data_dir: Path, place: Path) -> None:
        self._arguments = [*command(), "retention", "run", "--json", "--data-dir", str(data_dir)]
        urls = {f"MEMVAULT_DATABASE__{name.upper()}": url for name, url in database.urls.items()}
        self._environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY), "HOME": str(place), **urls}
        self._place = place

    @contextmanager
    def begun(self) -> Iterator[subprocess.Popen[bytes]]:
        """Begin a run of all tenants; what still runs of it in the end is killed."""
        with (self._place / "stderr").open("wb") as stderr:
            process = subprocess.Popen(
                self._arguments,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                cwd=self._place,
                env=self._environ,
            )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            process.wait(60)

    def done(self) -> None:
        """Run all tenants to the end."""
        with self.begun() as process:
            assert process.wait(120) == 0, (self._place / "stderr").read_text()


@pytest.mark.parametrize("next_one", ["the next command", "the sweep"])
def test_a_killed_run_is_finished_and_deletes_nothing_else(
    next_one: str,
    services: Services,
    caller: Caller,
    tenant: TenantId,
    database: Postgres,
    data_dir: Path,
    add_many: AddMany,
    set_rule: SetRule,
    tmp_path: Path,
) -> None:
    step = runs_module.STEP
    mine = add_many(caller, step + 40)
    rival = services.installation.tenants.create("rival").id
    theirs = add_many(caller_of(services, rival), 6)
    set_rule("old", age="P30D")
    commands = Commands(database, data_dir, tmp_path)
    with psycopg.connect(database.admin) as blocking, commands.begun() as process:
        # The second step waits for one of its memories, in the middle of its transaction; there the process dies.
        waited_for = mine.ids[step + 20]
        blocking.execute("SELECT 1 FROM memories WHERE id = %s FOR UPDATE", [waited_for])
        eventually(lambda: process.poll() is not None or waiting(database), seconds=120)
        assert process.poll() is None, (tmp_path / "stderr").read_text()
        process.kill()
        process.wait(60)
    first = set(mine.ids[:step])
    eventually(lambda: not waiting(database), seconds=60)
    assert runs_of(database, tenant) == [("running", step, len(first & mine.old), 0)]
    assert present(database, tenant) == set(mine.ids) - (first & mine.old)

    if next_one == "the sweep":
        services.retention_jobs.sweep(0)
        services.retention_jobs.run(str(tenant))
        services.retention_jobs.run(str(rival))
    else:
        commands.done()
    assert runs_of(database, tenant) == [("done", len(mine.ids), len(mine.old), 0)]
    assert present(database, tenant) == set(mine.ids) - mine.old
    assert present(database, rival) == set(theirs.ids)
    assert deletions(database, tenant) == Counter(mine.old)
    assert deletions(database, rival) == Counter()
    # Nothing is left to be done.
    commands.done()
    assert present(database, tenant) == set(mine.ids) - mine.old
    assert deletions(database, tenant) == Counter(mine.old)


def waiting(database: Postgres) -> bool:
    """Whether somebody waits for a row in this database."""
    with psycopg.connect(database.admin) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ).fetchone()
    return bool(row and row[0])


@pytest.mark.parametrize("separately", [False, True], ids=["one run", "each begins one"])
def test_two_workers_delete_each_memory_once(
    separately: bool,
    services: Services,
    caller: Caller,
    tenant: TenantId,
    database: Postgres,
    data_dir: Path,
    add_many: AddMany,
    set_rule: SetRule,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runs_module, "STEP", 4)
    mine = add_many(caller, 90)
    set_rule("old", age="P30D")
    start = threading.Barrier(2)
    failed: list[BaseException] = []
    if not separately:
        services.retention_jobs.sweep(0)
    with ExitStack() as stack:
        workers = [worker(database, data_dir, tenant, stack) for _ in range(2)]

        def work(jobs: RetentionJobs) -> None:
            try:
                start.wait(60)
                if separately:
                    jobs.sweep(0)
                jobs.run(str(tenant))
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work, args=(jobs,)) for jobs in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
            assert not thread.is_alive()
    assert failed == []
    assert present(database, tenant) == set(mine.ids) - mine.old
    assert deletions(database, tenant) == Counter(mine.old)
    runs = runs_of(database, tenant)
    assert {run[0] for run in runs} == {"done"}
    assert sum(run[2] for run in runs) == len(mine.old)
    if not separately:
        assert runs == [("done", 90, len(mine.old), 0)]


def worker(database: Postgres, data_dir: Path, tenant: TenantId, stack: ExitStack) -> RetentionJobs:
    """What another process that works on the same record has of retention."""
    settings = load_settings(environ={}, flags={"data_dir": data_dir})
    opened = wiring.open_installation(settings, wiring.Connections(database.app, database.owner), stack)
    return RetentionJobs(settings, opened.database, opened.retention_runs, opened.queue, lambda: [tenant])
