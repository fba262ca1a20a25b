"""The index beside the record: lost, stale, of another model, or away, it comes right again by itself."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from service.errors import IndexUnavailable
from service.memories.actions import Edit, Query
from service.records import Message, NewMemories, SubjectNames
from service.scope import Caller
from service.wiring import Services
from tests.conftest import MakeServices, Postgres, caller_of

pytestmark = pytest.mark.integration


def fill(services: Services, caller: Caller, count: int = 30) -> None:
    """Add some memories, change one and delete one."""
    for number in range(count):
        new = NewMemories([Message("user", f"note {number} about gardens")], SubjectNames(user_id="alice"), infer=False)
        event = services.adds.add(caller, caller.scope, new)
        if number == 3:
            services.memories.update(caller, caller.scope, event.results[0].memory_id, Edit(text="a pond with fish"))
        if number == 4:
            services.memories.delete(caller, caller.scope, event.results[0].memory_id)


def answers(services: Services, caller: Caller) -> list[Any]:
    """Ids and scores of some searches."""
    texts = ("gardens", "fish in a pond", "note 7", "note 4")
    hits = [services.memories.search(caller, caller.scope, Query(text, limit=20)) for text in texts]
    return [[(hit.memory.id, round(hit.score, 5)) for hit in found] for found in hits]


def eventually(check: Callable[[], bool], within: float = 30.0) -> None:
    """Wait until a check holds."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            if check():
                return
        except IndexUnavailable:
            pass
        time.sleep(0.1)
    raise AssertionError("it did not come to hold")


def test_a_rebuild_restores_the_index_exactly(services: Services, caller: Caller) -> None:
    fill(services, caller)
    before = answers(services, caller)
    seen: list[int] = []
    assert services.jobs.rebuild(seen.append) == 29
    assert seen[-1] == 29
    assert answers(services, caller) == before
    assert services.index.count() == 29


def test_a_lost_index_is_made_again_at_the_start(make_services: MakeServices, data_dir: Path) -> None:
    services = make_services()
    caller = caller_of(services, services.installation.tenants.create("acme").id)
    fill(services, caller)
    before = answers(services, caller)
    services.index.close()
    shutil.rmtree(data_dir / "index")
    again = make_services()
    eventually(lambda: answers(again, caller) == before)


def test_vectors_of_another_model_are_made_again(services: Services, caller: Caller, database: Postgres) -> None:
    fill(services, caller)
    before = answers(services, caller)
    with psycopg.connect(database.admin, autocommit=True) as connection:
        vectors = dict(connection.execute("SELECT id, vector FROM memories").fetchall())
        connection.execute("UPDATE memories SET embedder = 'another-model' WHERE user_id IS NOT NULL")
        services.jobs.rebuild(lambda done: None)
        rows = connection.execute("SELECT DISTINCT embedder FROM memories").fetchall()
        changed = dict(connection.execute("SELECT id, vector FROM memories").fetchall())
    assert rows == [("all-MiniLM-L6-v2",)]
    assert all(vectors[one] != changed[one] for one in vectors)
    assert answers(services, caller) == before


def test_the_outbox_ends_empty_and_survives_an_index_that_is_away(make_services: MakeServices) -> None:
    services = make_services()
    caller = caller_of(services, services.installation.tenants.create("acme").id)
    fill(services, caller)
    eventually(lambda: services.outbox.size() == 0)
    services.index.close()
    new = NewMemories([Message("user", "written while the index was away")], SubjectNames(user_id="alice"), infer=False)
    event = services.adds.add(caller, caller.scope, new)
    memory_id = event.results[0].memory_id
    assert services.memories.get(caller, caller.scope, memory_id).text == "written while the index was away"
    with pytest.raises(IndexUnavailable):
        answers(services, caller)
    assert services.outbox.size() == 1
    again = make_services()
    eventually(lambda: again.outbox.size() == 0)
    found = again.memories.search(caller, caller.scope, Query("written while the index was away", limit=1))
    assert [hit.memory.id for hit in found] == [memory_id]
