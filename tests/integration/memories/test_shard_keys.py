"""The whole service on a Qdrant cluster with shard keys: it adds, changes, finds, deletes, and is dealt anew."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from service.index.server_shards import shard_key
from service.memories.actions import Edit
from service.scope import Caller
from service.wiring import Services
from tests.conftest import Postgres, caller_of
from tests.integration.memories.adding import add, found
from tests.integration.memories.test_model_change import opened
from tests.qdrant.serving import Qdrant, qdrant

pytestmark = pytest.mark.integration


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Qdrant]:
    """A cluster that remembers which shard keys it was asked for; no other process is waited for."""
    monkeypatch.setattr("service.index.server._LOOK_EVERY", 0.0)
    with qdrant(watch=True) as served:
        yield served


def named(served: Qdrant, before: int = 0) -> dict[str, set[str | None]]:
    """The shard keys that the requests about points named, by kind of request, after so many requests."""
    assert served.requests is not None
    by_kind: dict[str, set[str | None]] = {}
    for kind, body in served.requests[before:]:
        if kind == "points":
            by_kind.setdefault(body[0], set()).update(body[1])
    return by_kind


def index(served: Qdrant, number: int) -> dict[str, Any]:
    """The settings of an index with so many shard keys."""
    return {"url": served.url, "grpc_port": None, "shard_keys": number}


def layout(services: Services) -> str | None:
    """What readiness says of a layout that is not that of the settings."""
    return next((one.reason for one in services.readiness() if one.name == "index layout"), None)


def two_apart(services: Services) -> tuple[Caller, Caller]:
    """Callers of two tenants with different keys."""
    first = caller_of(services, services.installation.tenants.create("first").id)
    for number in range(50):
        other = caller_of(services, services.installation.tenants.create(f"other-{number}").id)
        if shard_key(other.scope.tenant_id, 5) != shard_key(first.scope.tenant_id, 5):
            return first, other
    raise AssertionError("fifty tenants have one key")


def test_the_service_asks_the_shards_of_the_tenant(cluster: Qdrant, database: Postgres, data_dir: Path) -> None:
    assert cluster.requests is not None
    with ExitStack() as stack:
        services = opened(database, data_dir, stack, None, index=index(cluster, 5))
        callers = two_apart(services)
        for caller in callers:
            before, mine = len(cluster.requests), shard_key(caller.scope.tenant_id, 5)
            added = add(services, caller, "She drinks tea", "She owns a car", "She lives in Rome").results
            services.memories.update(caller, caller.scope, added[1].memory_id, Edit(text="She owns a bicycle"))
            services.memories.delete(caller, caller.scope, added[2].memory_id)
            assert found(services, caller, "tea")[0] == "She drinks tea"
            assert found(services, caller, "bicycle")[0] == "She owns a bicycle"
            assert "She lives in Rome" not in found(services, caller, "Rome")
            asked = named(cluster, before)
            # The service may look after other tenants meanwhile, under their keys. All at once are only counted.
            for kind in ("PUT points", "POST points/delete", "POST points/query/batch"):
                assert mine in asked[kind]
            assert [kind for kind, keys in asked.items() if None in keys and kind != "POST points/count"] == []
        services.indexing.drain()
        assert layout(services) is None
    # Another number: everything is found as before, and the rebuild deals the tenants anew.
    with ExitStack() as stack:
        services = opened(database, data_dir, stack, None, index=index(cluster, 3))
        assert "index.shard_keys is 3, the collection was made with 5" in str(layout(services))
        for caller in callers:
            assert found(services, caller, "tea")[0] == "She drinks tea"
        assert services.jobs.rebuild(lambda done: None) == 4
        assert layout(services) is None
        for caller in callers:
            before = len(cluster.requests)
            assert found(services, caller, "tea")[0] == "She drinks tea"
            key = shard_key(caller.scope.tenant_id, 3)
            assert key in named(cluster, before)["POST points/query/batch"]
            assert services.index.of(caller.scope).count() == 2
        assert services.index.count() == 4
