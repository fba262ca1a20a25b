"""A rebuild on a Qdrant server is killed: what it left is removed by a process that goes on, and by none too early."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import httpx
import psycopg
import pytest

from service.errors import IndexUnavailable
from service.index import server as server_module
from service.memories import indexing as indexing_module
from tests.conftest import Postgres, caller_of
from tests.integration.memories.adding import add, found
from tests.integration.memories.test_index_upkeep import eventually
from tests.integration.memories.test_model_change import opened
from tests.qdrant.serving import Qdrant, qdrant

pytestmark = pytest.mark.integration


@pytest.fixture
def server() -> Iterator[Qdrant]:
    """A Qdrant server."""
    with qdrant() as running:
        yield running


def collections(server: Qdrant) -> int:
    """How many collections the server has."""
    headers = {"api-key": server.api_key or ""}
    answer = httpx.get(f"{server.url}/collections", headers=headers, trust_env=False).json()
    return len(answer["result"]["collections"])


def test_what_a_killed_rebuild_left_is_removed(
    server: Qdrant, database: Postgres, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_LOOK_EVERY", 0.05)
    with ExitStack() as stack:
        index = {"url": server.url, "grpc_port": None, "maintenance_interval": 1}
        services = opened(database, data_dir, stack, None, index=index)
        caller = caller_of(services, services.installation.tenants.create("acme").id)
        add(services, caller, "She drinks tea")
        services.jobs.rebuild(lambda done: None)
        assert collections(server) == 1
        claim, rebuild = services.indexing.claimed(), services.index.rebuild()
        claim.__enter__()
        rebuild.__enter__()
        add(services, caller, "She drinks coffee")
        # It may be alive.
        with pytest.raises(AssertionError):
            eventually(lambda: collections(server) == 1, within=3)
        with psycopg.connect(database.admin) as connection:
            connection.execute(
                "UPDATE tasks SET updated_at = updated_at - %s WHERE state = 'running'",
                [indexing_module._STALE_AFTER + timedelta(seconds=1)],
            )
        eventually(lambda: collections(server) == 1)
        assert not services.index.has_leftovers()
        add(services, caller, "She drinks water")
        assert set(found(services, caller, "drinks")) == {"She drinks tea", "She drinks coffee", "She drinks water"}
        assert ("upkeep", "ok") in [(part.name, part.state) for part in services.readiness()]
        # Should it be alive after all, it does not put in place what is gone.
        with pytest.raises(IndexUnavailable):
            rebuild.__exit__(None, None, None)
        claim.__exit__(None, None, None)
        assert services.jobs.rebuild(lambda done: None) == 3
