"""Shard keys on a Qdrant cluster: each request about a tenant names its key, and no tenant depends on another's."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from qdrant_client import models

from service.errors import IndexUnavailable
from service.filters.ast import EVERYTHING
from service.index.interface import Index, Rebuild, ScopedIndex
from service.index.scoped import TenantIndex
from service.index.server import ServerIndex, _RebuildWriter
from service.index.server_requests import Layout
from service.index.server_shards import shard_key, shard_keys
from service.scope import Scope, TenantId
from tests.integration.index.points import TERMS, KnowsAll, found, point, scope
from tests.qdrant.serving import Qdrant, open_complete, open_server, qdrant

pytestmark = pytest.mark.integration

NUMBER = 5
KEYED = Layout(shard_keys=NUMBER)


@pytest.fixture(params=[False, True], ids=["http", "grpc"])
def watched(request: pytest.FixtureRequest) -> Iterator[Qdrant]:
    """A cluster of the test's own, which remembers the shard keys of each request about points."""
    with qdrant(api_key="k" * 40, grpc=request.param, watch=True) as served:
        yield served


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rebuilds do not wait for other processes; these tests have none that would not look."""
    monkeypatch.setattr("service.index.server._LOOK_EVERY", 0.0)


def asked(served: Qdrant, what: str) -> list[Any]:
    """The requests of a kind so far."""
    assert served.requests is not None
    return [body for kind, body in served.requests if kind == what]


def keys_since(served: Qdrant, before: int) -> list[tuple[str, Any]]:
    """The requests about points after so many, each with the key that it named."""
    return [(what, key) for what, keys in asked(served, "points")[before:] for key in keys]


def key_of(of: Scope) -> str:
    """The key of a tenant among those of these tests."""
    key = shard_key(of.tenant_id, NUMBER)
    assert key is not None
    return key


def two_apart() -> tuple[Scope, Scope]:
    """Two tenants of different keys."""
    one = scope()
    while True:
        other = scope()
        if key_of(other) != key_of(one):
            return one, other


# What the adapter does for one tenant. Each is a public method of the interface; the catalogue below says when one is
# missing here.
ID = UUID(int=3)
OF_A_TENANT: Mapping[str, Callable[[ScopedIndex], Any]] = {
    "upsert": lambda part: part.upsert([point(ID, "tea"), *(point(None, "tea", version=2) for _ in range(130))]),
    "search": lambda part: [
        found(part, text="tea"),
        found(part, text="tea", limit=2),
        part.search(point().dense, TERMS.query("tea"), EVERYTHING, KnowsAll(), limit=5, neighbours=True),
    ],
    "existing": lambda part: part.existing([ID, *(uuid4() for _ in range(150))]),
    "versions": lambda part: part.versions(limit=10),
    "count": lambda part: [part.count(), part.count(subject=ID)],
    "delete": lambda part: part.delete([ID, *(uuid4() for _ in range(150))]),
}


def methods(of: type) -> set[str]:
    """The public methods of a class."""
    return {name for name in dir(of) if not name.startswith("_") and callable(getattr(of, name))}


def test_the_catalogue_has_all_that_is_done_for_one_tenant() -> None:
    assert methods(TenantIndex) == OF_A_TENANT.keys()
    assert methods(_RebuildWriter) == {"upsert", "delete"}
    # What is done for all tenants at once; `count` is the only one of them that asks about points.
    for_all = {"subject", "checked", "reading", "store", "remove", "fill", "drain", "addressed", "drop", "exists"}
    assert methods(ServerIndex) == methods(Index) | for_all


@pytest.mark.parametrize("layout", [KEYED, Layout()], ids=["on", "off"])
def test_each_request_about_a_tenant_names_its_key(watched: Qdrant, layout: Layout) -> None:
    index = open_complete(watched, layout=layout)
    for tenant in [scope() for _ in range(4)]:
        expected = key_of(tenant) if layout.shard_keys else None
        for name, act in OF_A_TENANT.items():
            before = len(asked(watched, "points"))
            act(index.of(tenant))
            named = keys_since(watched, before)
            assert named, name
            assert {key for _, key in named} == {expected}, name
        with index.rebuild() as fresh:
            _write(index, fresh, tenant)
            before = len(asked(watched, "points"))
            _write(index, fresh, tenant)
            named = keys_since(watched, before)
            # Each is written to both collections, the one that serves and the one that is being filled.
            assert len(named) == 6
            assert {key for _, key in named} == {expected}
    # All tenants at once: every shard is asked.
    before = len(asked(watched, "points"))
    index.count()
    assert [key for _, key in keys_since(watched, before)] == [None]
    # Nothing about points went past the watch: what was asked is of these kinds, and each of them was.
    kinds = {what.rpartition("/")[2].removeprefix("PUT ").lower() for what, _ in keys_since(watched, 0)}
    assert kinds == {"points", "delete", "batch", "scroll", "count"} or kinds == {
        "upsert",
        "delete",
        "querybatch",
        "scroll",
        "count",
    }
    index.close()


def _write(index: Index, fresh: Rebuild, tenant: Scope) -> None:
    index.of(tenant).upsert([point(ID)])
    index.of(tenant).delete([ID])
    fresh.of(tenant).upsert([point(ID)])
    fresh.of(tenant).delete([ID])


def test_the_key_of_a_tenant_is_the_same_for_ever() -> None:
    # Points are found again by every process and release: these may not change.
    tenant = TenantId(UUID("00000000-0000-4000-8000-000000000001"))
    expected = int.from_bytes(hashlib.sha256(tenant.bytes).digest()[:8], "big") % 12
    assert shard_key(tenant, 12) == f"k{expected}of12" == "k2of12"
    assert shard_key(tenant, 0) is None
    # No two numbers share a name, so that nobody looks under a key of another number.
    assert len({key for number in range(1, 30) for key in shard_keys(number)}) == sum(range(1, 30))
    dealt = Counter(shard_key(TenantId(UUID(int=number)), 12) for number in range(12_000))
    assert dealt.keys() == set(shard_keys(12))
    assert max(dealt.values()) < 1_200


def test_the_collection_is_made_with_its_keys(watched: Qdrant) -> None:
    layout = Layout(shards=2, replicas=3, shard_keys=NUMBER)
    index = open_server(watched, layout=layout, name="same")
    index.of(scope()).upsert([point()])
    (made,) = asked(watched, "create")
    # Each key gets as many shards and copies as the collection says.
    assert made.sharding_method is models.ShardingMethod.CUSTOM
    assert (made.shard_number, made.replication_factor) == (2, 3)
    keys = [body for _, body in asked(watched, "key")]
    assert [body.shard_key for body in keys] == shard_keys(NUMBER)
    assert {(body.shards_number, body.replication_factor) for body in keys} == {(None, None)}
    assert index.features() == {}
    index.close()
    # Keys that are there stay, one that is missing is made.
    open_server(watched, layout=layout, name="same").count()
    assert len(asked(watched, "key")) == NUMBER
    (name,) = {name for name, _ in asked(watched, "key")}
    assert watched.made is not None
    watched.made[name].keys.remove("k3of5")
    open_server(watched, layout=layout, name="same").count()
    assert [body.shard_key for _, body in asked(watched, "key")][NUMBER:] == ["k3of5"]


def test_without_the_setting_nothing_is_said_of_keys(watched: Qdrant) -> None:
    index = open_server(watched)
    index.of(scope()).upsert([point()])
    (made,) = asked(watched, "create")
    assert made.sharding_method is None
    assert "shard_keys" not in made.metadata
    assert asked(watched, "key") == []
    index.close()


def test_a_tenant_does_not_depend_on_the_shards_of_another(watched: Qdrant) -> None:
    index, (mine, theirs) = open_complete(watched, layout=KEYED), two_apart()
    for one in (mine, theirs):
        index.of(one).upsert([point(ID, "tea")])
    (name,) = {name for name, _ in asked(watched, "key")}
    assert watched.made is not None
    watched.made[name].down.add(key_of(theirs))
    for act in OF_A_TENANT.values():
        act(index.of(mine))
    for act in OF_A_TENANT.values():
        with pytest.raises(IndexUnavailable):
            act(index.of(theirs))
    # What is asked of all tenants needs all shards.
    with pytest.raises(IndexUnavailable):
        index.count()
    watched.made[name].down.clear()
    assert found(index.of(theirs), text="tea").keys() == {ID}
    index.close()


def test_tenants_of_one_key_do_not_see_each_other(watched: Qdrant) -> None:
    index = open_complete(watched, layout=Layout(shard_keys=1))
    mine, theirs = scope(), scope()
    for one in (mine, theirs):
        index.of(one).upsert([point(ID, "tea"), point(None, "tea")])
    index.of(mine).delete([ID])
    assert (index.of(mine).count(), index.of(theirs).count()) == (1, 2)
    assert len(found(index.of(mine), text="tea")) == 1
    index.close()


@pytest.mark.parametrize(
    ("before", "after"), [(0, 5), (5, 0), (5, 7), (7, 5), (5, 5)], ids=lambda number: f"{number}keys"
)
def test_another_number_of_keys_is_told_until_a_rebuild(watched: Qdrant, before: int, after: int) -> None:
    """Processes with the old and the new setting, before and after the rebuild, find and change the same points."""
    tenants = [scope() for _ in range(12)]
    old = open_server(watched, name="same", layout=Layout(shard_keys=before))
    for tenant in tenants:
        old.of(tenant).upsert([point(ID, "tea")])
    new = open_server(watched, name="same", layout=Layout(shard_keys=after))
    assert all(new.of(tenant).existing([ID]) == {ID: 1} for tenant in tenants)
    reason = (
        f"index.shard_keys is {after}, the collection was made with {before}: `memvault index rebuild` makes it again"
    )
    assert new.features() == ({} if before == after else {"index layout": ("off", reason)})
    with new.rebuild() as fresh:
        for tenant in tenants[:6]:
            fresh.of(tenant).upsert([point(ID, "tea")])
        # What is written meanwhile, with either setting, reaches both.
        for tenant in tenants[6:9]:
            old.of(tenant).upsert([point(ID, "tea", version=2)])
        for tenant in tenants[9:]:
            new.of(tenant).upsert([point(ID, "tea", version=2)])
        assert all(old.of(tenant).existing([ID]) for tenant in tenants)
    assert new.features() == {}
    # The old one learns of it by being refused, or by looking.
    old._looked = float("inf")
    for number, tenant in enumerate(tenants):
        for index in (old, new):
            assert index.of(tenant).existing([ID]) == {ID: 1 if number < 6 else 2}
            assert found(index.of(tenant), text="tea").keys() == {ID}
        old.of(tenant).upsert([point(ID, "coffee", version=3)])
        assert new.of(tenant).existing([ID]) == {ID: 3}
        old.of(tenant).delete([ID])
        assert new.of(tenant).count() == 0
    old.close()
    new.close()


def test_another_process_notices_what_a_rebuild_has_mended(watched: Qdrant) -> None:
    open_server(watched, name="same").count()
    one, other = (open_server(watched, name="same", layout=KEYED) for _ in range(2))
    one.count()
    assert "index layout" in one.features()
    with other.rebuild():
        pass
    one.of(scope()).count()
    assert one.features() == {}
    one.close()
    other.close()


@pytest.mark.parametrize("grpc", [False, True], ids=["http", "grpc"])
def test_a_server_that_is_no_cluster_says_what_to_do(grpc: bool) -> None:
    with qdrant(api_key="k" * 40, grpc=grpc, cluster=False) as served:
        index = open_server(served, name="same", layout=KEYED)
        for _ in range(2):
            with pytest.raises(IndexUnavailable, match=r"`index\.shard_keys` to 0, or .*QDRANT__CLUSTER__ENABLED"):
                index.count()
        index.close()
        # Nothing is left behind that would keep the service from going on without.
        plain = open_server(served, name="same")
        plain.of(scope()).upsert([point()])
        assert plain.count() == 1
        keyed = open_server(served, name="same", layout=KEYED)
        with pytest.raises(IndexUnavailable, match="QDRANT__CLUSTER__ENABLED"), keyed.rebuild():
            pass
        assert plain.count() == 1
        headers = {"api-key": served.api_key or ""}
        answer = httpx.get(f"{served.url}/collections", headers=headers, trust_env=False).json()
        assert len(answer["result"]["collections"]) == 1
        plain.close()
        keyed.close()
