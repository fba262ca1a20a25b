"""The index on a Qdrant server: how the collection is made, what is asked, who may change it, and rebuilds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest
from qdrant_client import models

from service.errors import IndexUnavailable
from service.filters.ast import EVERYTHING
from service.index.selection import Key
from service.index.server_requests import Layout
from tests.integration.index.points import TERMS, KnowsAll, found, point, scope, vector
from tests.qdrant.serving import Qdrant, open_server, qdrant

pytestmark = pytest.mark.integration


@pytest.fixture
def recorded() -> Iterator[Qdrant]:
    """A server of the test's own, which remembers what it was asked."""
    with qdrant(api_key="k" * 40) as served:
        yield served


def asked(served: Qdrant, what: str) -> list[Any]:
    """The requests of a kind so far."""
    assert served.requests is not None
    return [body for kind, body in served.requests if kind == what]


def test_the_collection_is_made_for_many_tenants(recorded: Qdrant) -> None:
    layout = Layout(shards=3, replicas=2, write_consistency=2, quantization="scalar", on_disk=True)
    index = open_server(recorded, layout=layout)
    index.of(scope()).upsert([point()])
    (made,) = asked(recorded, "create")
    assert (made.shard_number, made.replication_factor, made.write_consistency_factor) == (3, 2, 2)
    assert made.hnsw_config.m == 0
    assert made.hnsw_config.payload_m == 16
    assert made.vectors["d"].distance is models.Distance.COSINE
    assert made.vectors["d"].on_disk
    assert made.sparse_vectors["b"].modifier is models.Modifier.IDF
    assert made.quantization_config.scalar.type is models.ScalarType.INT8
    strict = made.strict_mode_config
    assert (strict.enabled, strict.unindexed_filtering_retrieve, strict.unindexed_filtering_update) == (
        True,
        False,
        False,
    )
    fields = {body.field_name: body.field_schema for body in asked(recorded, "index")}
    # Every field of a point has its index: strict mode would refuse a filter on another.
    assert fields.keys() == {key.value for key in Key}
    assert [name for name, schema in fields.items() if getattr(schema, "is_tenant", None)] == [Key.TENANT.value]
    assert [name for name, schema in fields.items() if schema.enable_hnsw] == [Key.TENANT.value]
    index.close()


def test_every_question_carries_the_tenant_and_its_own_statistics(recorded: Qdrant) -> None:
    index, tenant = open_server(recorded), scope()
    index.of(tenant).upsert([point(text="tea")])
    found(index.of(tenant), text="tea")
    questions = asked(recorded, "query")
    assert questions
    for question in questions:
        assert str(tenant.tenant_id) in question.filter.model_dump_json()
    (by_words,) = [question for question in questions if question.using == "b"]
    assert str(tenant.tenant_id) in by_words.params.idf.corpus.model_dump_json()
    index.close()


def test_an_older_server_is_told_apart() -> None:
    with qdrant(version="1.17.3") as served:
        index = open_server(served)
        index.of(scope()).upsert([point(text="tea")])
        found(index.of(scope()), text="tea")
        assert all(question.params is None for question in asked(served, "query"))
        (feature,) = index.features().values()
        assert feature[0] == "off"
        assert "1.17" in str(feature[1])
        index.close()
    with qdrant(version="1.15.0") as served:
        index = open_server(served)
        with pytest.raises(IndexUnavailable, match=r"1\.15: 1\.16 or newer"):
            index.count()
        index.close()


def test_a_wrong_key_and_a_server_that_is_away_are_told_without_content(recorded: Qdrant) -> None:
    stranger = open_server(Qdrant(recorded.url, "x" * 40))
    with pytest.raises(IndexUnavailable) as refused:
        stranger.of(scope()).upsert([point(text="canary")])
    assert "canary" not in str(refused.value)
    index, tenant = open_server(recorded), scope()
    index.of(tenant).upsert([point(text="tea")])
    httpx.post(f"{recorded.url}/stop", trust_env=False)
    for call in (index.count, lambda: found(index.of(tenant)), lambda: index.of(tenant).upsert([point()])):
        with pytest.raises(IndexUnavailable, match=r"index\.url"):
            call()
    httpx.post(f"{recorded.url}/go", trust_env=False)
    assert index.count() == 1
    index.close()
    stranger.close()


def test_it_opens_while_the_server_is_away(recorded: Qdrant) -> None:
    httpx.post(f"{recorded.url}/stop", trust_env=False)
    index = open_server(recorded)
    with pytest.raises(IndexUnavailable):
        index.is_complete()
    httpx.post(f"{recorded.url}/go", trust_env=False)
    assert not index.is_complete()
    index.mark_complete()
    assert index.is_complete()
    index.close()


def test_two_processes_see_the_same_index(recorded: Qdrant) -> None:
    one, other = open_server(recorded, name="same"), open_server(recorded, name="same")
    tenant, id_ = scope(), uuid4()
    one.of(tenant).upsert([point(id_, "tea", version=2)])
    assert found(other.of(tenant), text="tea")[id_].version == 2
    # Which of them read the record first does not matter: the newer version stays.
    other.of(tenant).upsert([point(id_, "coffee", version=1)])
    assert one.of(tenant).existing([id_]) == {id_: 2}
    other.of(tenant).delete([id_])
    assert one.of(tenant).count() == 0
    one.close()
    other.close()


def test_models_do_not_share_a_collection(recorded: Qdrant) -> None:
    one, other = open_server(recorded, name="same"), open_server(recorded, name="same", model="another")
    one.of(scope()).upsert([point()])
    assert (one.count(), other.count()) == (1, 0)
    one.close()
    other.close()


def collections(served: Qdrant) -> set[str]:
    """The collections that the server has."""
    headers = {"api-key": served.api_key or ""}
    answer = httpx.get(f"{served.url}/collections", headers=headers, trust_env=False).json()
    return {one["name"] for one in answer["result"]["collections"]}


def test_a_rebuild_takes_over_with_what_others_wrote_meanwhile(
    recorded: Qdrant, monkeypatch: pytest.MonkeyPatch
) -> None:
    _quick(monkeypatch)
    one, other = open_server(recorded, name="same"), open_server(recorded, name="same")
    tenant = scope()
    kept, changed, removed, added = (uuid4() for _ in range(4))
    one.of(tenant).upsert([point(id_, "tea") for id_ in (kept, changed, removed)])
    with one.rebuild() as fresh:
        other.of(tenant).upsert([point(changed, "coffee", version=2), point(added, "water")])
        fresh.of(tenant).upsert([point(id_, "tea") for id_ in (kept, changed, removed)])
        other.of(tenant).delete([removed])
        assert one.count() == 3
    assert one.is_complete()
    for index in (one, other):
        assert index.of(tenant).existing([kept, changed, removed, added]) == {kept: 1, changed: 2, added: 1}
    assert len(collections(recorded)) == 1
    other.of(tenant).upsert([point(removed, "tea")])
    assert one.of(tenant).count() == 4
    one.close()
    other.close()


def test_a_rebuild_that_fails_is_abandoned(recorded: Qdrant, monkeypatch: pytest.MonkeyPatch) -> None:
    _quick(monkeypatch)
    index, tenant = open_server(recorded), scope()
    index.of(tenant).upsert([point(text="tea")])
    before = collections(recorded)
    rebuild = index.rebuild()
    rebuild.__enter__().of(tenant).upsert([point()])
    failure = RuntimeError("no")
    assert not rebuild.__exit__(RuntimeError, failure, None)
    assert collections(recorded) == before
    assert not index.is_complete()
    assert index.of(tenant).search(vector(), TERMS.query("tea"), EVERYTHING, KnowsAll(), limit=5).candidates
    index.of(tenant).upsert([point()])
    index.close()


def test_a_rebuild_that_was_cut_short_is_swept(recorded: Qdrant, monkeypatch: pytest.MonkeyPatch) -> None:
    _quick(monkeypatch)
    index = open_server(recorded, name="same")
    index.of(scope()).upsert([point()])
    cut = index.rebuild()
    cut.__enter__()
    assert len(collections(recorded)) == 2
    again = open_server(recorded, name="same")
    with again.rebuild():
        pass
    assert len(collections(recorded)) == 1
    # The first one, should it still be alive, notices and does not put its collection in place.
    with pytest.raises(IndexUnavailable):
        cut.__exit__(None, None, None)
    assert again.is_complete()
    assert again.count() == 0
    index.close()
    again.close()


def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for a new collection at each write, so that nothing has to wait for what processes remember."""
    monkeypatch.setattr("service.index.server._LOOK_EVERY", 0.0)
