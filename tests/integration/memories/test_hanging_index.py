"""A Qdrant server that hangs: searches are refused, all else goes on, and the index lacks nothing afterwards."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from service import wiring
from service.errors import IndexUnavailable
from service.index.server import ServerIndex
from service.main import create_app
from service.memories import answering, doubts, indexing
from service.scope import Caller
from service.settings import load_settings
from service.wiring import Services
from tests.conftest import MakeServices, Postgres, caller_of, principal_of
from tests.integration.memories.adding import add, found
from tests.integration.memories.test_index_upkeep import eventually
from tests.qdrant.hanging import hanging, silent
from tests.qdrant.serving import qdrant

pytestmark = pytest.mark.integration

Open = Callable[..., Services]


@pytest.fixture
def opened(database: Postgres, data_dir: Path) -> Iterator[Open]:
    """Open services whose index nobody but the test keeps in step."""
    with ExitStack() as stack:

        def go(**index: Any) -> Services:
            settings = load_settings(environ={}, flags={"data_dir": data_dir, "index": index})
            connections = wiring.Connections(database.app, database.owner)
            services = wiring.open_services(wiring.open_installation(settings, connections, stack), stack, upkeep=False)
            services.indexing.heal(services.installation.tenants.living_ids)
            return services

        yield go


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is, what was found out is still so at the end of the test."""
    monkeypatch.setattr(answering, "_REST", 600.0)


@contextmanager
def untouched() -> Iterator[None]:
    """Whoever asks or writes the index inside the block fails."""

    def touched(*_: object, **__: object) -> None:
        raise AssertionError("the index was called")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("reading", "store", "remove"):
            patch.setattr(ServerIndex, name, touched)
        yield


def rows(services: Services) -> int:
    """The rows of the outbox."""
    return services.outbox.size()


def newcomer(services: Services) -> Caller:
    """A caller of a tenant that is new."""
    return caller_of(services, services.installation.tenants.create("acme").id)


@pytest.mark.parametrize("server", [silent, hanging])
def test_a_server_that_does_not_answer_stops_neither_writes_nor_reads_nor_probes(
    make_services: MakeServices, server: Callable[[], Any]
) -> None:
    with server() as (index, hang):
        # Less than the adds take when each waits for the one before.
        services = make_services(index=index, server={"threads": 4, "answer_seconds": 20})
        _, key = principal_of(services, services.installation.tenants.create("acme").id)
        with TestClient(create_app(services), headers={"Authorization": f"Token {key}"}) as client:

            def adding(number: int) -> int:
                said = [{"role": "user", "content": f"note number {number}"}]
                body = {"messages": said, "user_id": "alice", "infer": False}
                return client.post("/v3/memories/add/", json=body).status_code

            eventually(lambda: client.get("/readyz").status_code == 200)
            assert adding(0) == 200
            (kept,) = client.post("/v3/memories/", json={"filters": {"user_id": "alice"}}).json()["results"]
            hang.set()
            with ThreadPoolExecutor(41) as pool:
                adds = [pool.submit(adding, number) for number in range(1, 21)]
                reads = [pool.submit(client.get, f"/v1/memories/{kept['id']}/") for _ in range(20)]
                while not all(one.done() for one in (*adds, *reads)):
                    assert pool.submit(client.get, "/readyz").result(10).status_code == 200
                    assert pool.submit(client.get, "/metrics").result(10).status_code == 200
            assert {one.result() for one in adds} == {200}
            assert {one.result().status_code for one in reads} == {200}
            refused = client.post("/v3/memories/search/", json={"query": "note", "filters": {"user_id": "alice"}})
            assert (refused.status_code, refused.json()["code"]) == (503, "index_unavailable")
            assert int(refused.headers["Retry-After"]) > 0
            assert rows(services) >= 20


def test_after_a_call_that_waited_in_vain_the_index_is_left_alone_until_it_answers(opened: Open, slow: None) -> None:
    with hanging() as (index, hang):
        services = opened(**index, timeout=1.0)
        caller = newcomer(services)
        add(services, caller, "I play the cello")
        assert found(services, caller, "cello") == ["I play the cello"]
        hang.set()
        add(services, caller, "I moved to Porto")
        with untouched():
            (added,) = add(services, caller, "I like figs").results
            services.memories.delete(caller, caller.scope, added.memory_id)
            add(services, caller, "I like dates")
            with pytest.raises(IndexUnavailable):
                services.indexing.check()
            with pytest.raises(IndexUnavailable):
                found(services, caller, "cello")
        assert services.indexing.behind
        hang.clear()
        services.indexing.drain()
        assert not services.indexing.behind
        assert sorted(found(services, caller, "Porto")) == ["I like dates", "I moved to Porto", "I play the cello"]


def test_a_search_that_waited_in_vain_spares_the_others(opened: Open, slow: None) -> None:
    with hanging() as (index, hang):
        services = opened(**index, timeout=1.0)
        caller = newcomer(services)
        add(services, caller, "I play the cello")
        hang.set()
        with pytest.raises(IndexUnavailable):
            found(services, caller, "cello")
        with untouched():
            with pytest.raises(IndexUnavailable) as refused:
                found(services, caller, "cello")
            add(services, caller, "I moved to Porto")
        assert int(refused.value.headers["Retry-After"]) > 0
        hang.clear()
        services.indexing.drain()
        assert sorted(found(services, caller, "cello")) == ["I moved to Porto", "I play the cello"]


def test_a_write_does_not_wait_for_long_behind_others(
    services: Services, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing, "_WAITS_ALONE", 0.05)
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        with services.indexing._generations.lock:
            held.set()
            assert free.wait(30)

    with ThreadPoolExecutor(1) as pool:
        holding = pool.submit(hold)
        assert held.wait(30)
        try:
            add(services, caller, "I play the cello")
            assert (rows(services), services.index.count()) == (1, 0)
        finally:
            free.set()
        holding.result()
    services.indexing.drain()
    assert found(services, caller, "cello") == ["I play the cello"]


def test_a_point_that_is_old_when_its_turn_comes_is_left_to_the_outbox(
    services: Services, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    with services.indexing._generations.lock:
        with monkeypatch.context() as patch:
            patch.setattr(indexing, "_STALE_POINT", -1.0)
            add(services, caller, "I play the cello")
        assert (rows(services), services.index.count()) == (1, 0)
    services.indexing.drain()
    assert found(services, caller, "cello") == ["I play the cello"]


def test_what_arrives_after_its_memory_was_deleted_elsewhere_does_not_stay(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hanging() as (index, hang):
        services, other = opened(**index, timeout=1.0), opened(**index, timeout=1.0)
        caller = newcomer(services)
        add(services, caller, "I play the cello")
        services.indexing.drain()
        hang.set()
        (added,) = add(services, caller, "I moved to Porto").results
        with services.installation.database.transaction(caller.scope) as connection:
            entries = services.installation.record.index_entries(connection, caller.scope, [added.memory_id])
        late = services.indexing._point(caller.scope, entries[added.memory_id])
        hang.clear()
        other.memories.delete(caller, caller.scope, added.memory_id)
        with monkeypatch.context() as patch:
            patch.setattr(indexing, "_SETTLED_AFTER", timedelta(0))
            other.indexing.drain()
        assert rows(services) == 0
        # What the network had kept back.
        services.index.of(caller.scope).upsert([late])
        assert present(services, caller, added.memory_id)
        for _ in range(2):
            services.indexing.drain()
        assert not present(services, caller, added.memory_id)


def test_a_write_that_took_long_is_looked_at_again(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    with qdrant(grpc=True) as server:
        services = opened(url=server.url, grpc_port=server.grpc_port)
        caller = newcomer(services)
        monkeypatch.setattr(doubts, "_LONG", -1.0)
        add(services, caller, "I play the cello")
        assert rows(services) == 1
        services.indexing.drain()
        assert rows(services) == 2


def present(services: Services, caller: Caller, memory_id: UUID) -> bool:
    """Whether a memory has a point."""
    return memory_id in services.index.of(caller.scope).existing([memory_id])
