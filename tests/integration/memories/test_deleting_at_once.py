"""Deletions that meet others or an approval: each memory is told of once, and none stays that either order removes."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg
import pytest

from service.errors import NotFound
from service.filters.ast import EVERYTHING
from service.memories import actions, indexing
from service.memories.reviews import Decision
from service.records import SubjectNames
from service.scope import Caller
from service.storage.stored import StoredMemory
from service.wiring import Services
from tests.conftest import Postgres
from tests.integration.memories.adding import add, found
from tests.integration.memories.test_quarantine import add as ask
from tests.integration.memories.test_quarantine import review

pytestmark = pytest.mark.integration

ALICE = SubjectNames(user_id="alice")
Delete = Callable[[Services, Caller, UUID], int]
#: Ways to delete one memory; each returns how many it deleted.
WAYS: dict[str, Delete] = {
    "all": lambda services, caller, _: services.memories.delete_all(caller, caller.scope, ALICE),
    "single": lambda services, caller, memory_id: _single(services, caller, memory_id),
    "batch": lambda services, caller, memory_id: services.batches.delete(caller, caller.scope, [memory_id]).count(None),
}


def _single(services: Services, caller: Caller, memory_id: UUID) -> int:
    try:
        return services.memories.delete(caller, caller.scope, memory_id)
    except NotFound:
        return 0


@contextmanager
def locked(database: Postgres, table: str, row_id: UUID) -> Iterator[Callable[[int], None]]:
    """Lock a row until the block ends, and lend what waits until so many others wait for some lock."""
    with psycopg.connect(database.admin) as holder, psycopg.connect(database.admin, autocommit=True) as looker:
        holder.execute(f"SELECT 1 FROM {table} WHERE id = %s FOR UPDATE", [row_id])  # type: ignore[arg-type]

        def wait_for(number: int) -> None:
            query = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            for _ in range(3000):
                if looker.execute(query).fetchone() == (number,):
                    return
                looker.execute("SELECT pg_sleep(0.01)")
            raise AssertionError(f"{number} never waited")

        yield wait_for


def rows(database: Postgres, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """The rows of a query, as a superuser."""
    with psycopg.connect(database.admin) as connection:
        return connection.execute(query, values).fetchall()  # type: ignore[arg-type]


@pytest.mark.parametrize("other", WAYS)
def test_two_that_delete_the_same_memory_tell_of_it_once(
    services: Services, caller: Caller, database: Postgres, other: str
) -> None:
    memory_id = add(services, caller, "tea").results[0].memory_id
    with ThreadPoolExecutor(2) as pool:
        with locked(database, "memories", memory_id) as wait_for:
            first = pool.submit(WAYS["all"], services, caller, memory_id)
            wait_for(1)
            second = pool.submit(WAYS[other], services, caller, memory_id)
            wait_for(2)
        assert first.result(60) + second.result(60) == 1
    assert rows(database, "SELECT count(*) FROM history WHERE change = 'DELETE'") == [(1,)]
    told = rows(
        database,
        "SELECT count(*) FROM audit WHERE outcome = 'done' AND %s = ANY (target_ids) AND event LIKE %s",
        memory_id,
        "%delete%",
    )
    assert told == [(1,)]


def test_what_is_being_approved_is_deleted_with_its_scope(
    services: Services, caller: Caller, database: Postgres
) -> None:
    review(services, caller)
    event = ask(services, caller, "I like tea")
    review_id = event.results[0].memory_id
    with ThreadPoolExecutor(2) as pool:
        with locked(database, "events", event.id) as wait_for:
            # The memory is inserted, and what its event tells waits for us.
            approved = pool.submit(services.reviews.approve, caller, caller.scope, [review_id])
            wait_for(1)
            deleted = pool.submit(services.memories.delete_all, caller, caller.scope, ALICE)
            wait_for(2)
        assert [one.decision for one in approved.result(60)] == [Decision.APPROVED]
        assert deleted.result(60) == 1
    assert services.memories.list(caller, caller.scope, EVERYTHING, page=1, size=5, on=None).items == []
    assert rows(database, "SELECT count(*) FROM quarantine") == [(0,)]


def test_a_large_scope_is_never_in_memory_as_a_whole(
    services: Services, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(services, caller, *(f"note number {number}" for number in range(7)))
    monkeypatch.setattr(actions, "_BATCH", 2)
    remove, at_once = services.memories._remove, []

    def opened() -> int:
        return sum(isinstance(one, StoredMemory) for one in gc.get_objects())

    def counted(*given: Any) -> None:
        at_once.append(opened() - before)
        remove(*given)

    monkeypatch.setattr(services.memories, "_remove", counted)
    gc.collect()
    before = opened()
    assert services.memories.delete_all(caller, caller.scope, ALICE) == 7
    assert len(at_once) == 4
    assert max(at_once) <= 2


def test_a_large_deletion_is_left_to_the_outbox(
    services: Services, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "_GONE_AT_ONCE", 2)
    add(services, caller, *(f"note number {number}" for number in range(3)))
    add(services, caller, "tea", "coffee", user="bob")
    # No pass over the outbox can come between.
    with services.indexing._generations.lock:
        assert services.memories.delete_all(caller, caller.scope, ALICE) == 3
        assert services.index.count() == 5
        assert services.outbox.size() >= 3
        assert found(services, caller, "note", {"user_id": "alice"}) == []
        assert services.memories.delete_all(caller, caller.scope, SubjectNames(user_id="bob")) == 2
        assert services.index.count() == 3
    services.indexing.drain()
    assert services.index.count() == 0
