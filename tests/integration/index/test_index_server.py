"""The index on a Qdrant server: how the collection is made, what is asked, who may change it, and rebuilds."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from qdrant_client import models

from service.errors import ConfigurationError, IndexUnavailable
from service.filters.ast import EVERYTHING
from service.index.questions import SparseTerms
from service.index.selection import Key
from service.index.server import ServerIndex
from service.index.server_requests import Layout
from tests.integration.index.points import TERMS, KnowsAll, found, point, scope, vector
from tests.qdrant.certificates import made_in
from tests.qdrant.serving import Qdrant, Tls, lose_data, open_complete, open_server, qdrant

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


def test_long_texts_are_written_in_parts_that_a_server_takes(recorded: Qdrant, monkeypatch: pytest.MonkeyPatch) -> None:
    index, written = open_complete(recorded), list[list[models.PointStruct]]()
    monkeypatch.setattr(ServerIndex, "_upsert", lambda *given, structs, **more: written.append(structs))
    monkeypatch.setattr("service.index.server._LOOK_EVERY", 0.01)
    # 20,000 Chinese characters have that many words.
    words = SparseTerms(tuple(2**32 - number for number in range(12_000, 0, -1)), (1.2345678901234567,) * 12_000)
    points = [point(text_terms=words if number % 40 else TERMS.document("tea")) for number in range(100)]
    index.of(scope()).upsert(points)
    with index.rebuild() as fresh:
        fresh.of(scope()).upsert(points)
    for half in (written[: len(written) // 2], written[len(written) // 2 :]):
        assert [one.payload["m"] for part in half for one in part] == [str(one.memory_id) for one in points]
        assert len(half) == 5
    for structs in written:
        assert sum(len(one.model_dump_json()) for one in structs) < 16 << 20
    index.close()


def test_every_question_carries_the_tenant_and_its_own_statistics(recorded: Qdrant) -> None:
    index, tenant = open_complete(recorded), scope()
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
        index = open_complete(served)
        index.of(scope()).upsert([point(text="tea")])
        found(index.of(scope()), text="tea")
        assert all(getattr(question.params, "idf", None) is None for question in asked(served, "query"))
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
    one, other = open_complete(recorded, name="same"), open_complete(recorded, name="same")
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
    index.mark_complete()
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


def test_an_index_that_another_process_begins_anew_answers_no_search(
    recorded: Qdrant, monkeypatch: pytest.MonkeyPatch
) -> None:
    _quick(monkeypatch)
    one, other = open_complete(recorded, name="same"), open_complete(recorded, name="same")
    tenant, kept, added = scope(), point(text="tea"), point(text="tea")
    one.of(tenant).upsert([kept])
    assert found(other.of(tenant), text="tea")
    lose_data(recorded)
    # Nobody has looked at the server yet.
    with pytest.raises(IndexUnavailable):
        found(other.of(tenant), text="tea")
    restarted = open_server(recorded, name="same")
    with restarted.rebuild() as fresh:
        other.of(tenant).upsert([added])
        assert other.of(tenant).existing([added.memory_id, kept.memory_id]) == {added.memory_id: 1}
        for index in (one, other, restarted):
            assert not index.is_complete()
            with pytest.raises(IndexUnavailable, match="made again from the record"):
                found(index.of(tenant), text="tea")
        fresh.of(tenant).upsert([kept])
    for index in (one, other, restarted):
        assert found(index.of(tenant), text="tea").keys() == {kept.memory_id, added.memory_id}
        index.close()


def test_a_process_that_is_open_begins_anew_where_the_server_lost_its_data(recorded: Qdrant) -> None:
    index, tenant = open_complete(recorded), scope()
    index.of(tenant).upsert([point()])
    lose_data(recorded)
    assert not index.is_complete()
    index.of(tenant).upsert([point(text="tea")])
    assert index.count() == 1
    assert not index.is_complete()
    index.mark_complete()
    assert found(index.of(tenant), text="tea")
    index.close()


def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for a new collection at each write, so that nothing has to wait for what processes remember."""
    monkeypatch.setattr("service.index.server._LOOK_EVERY", 0.0)


def test_everything_goes_over_grpc_where_its_port_is_named() -> None:
    with qdrant(api_key="k" * 40, grpc=True) as served:
        index, tenant = open_complete(served, name="same", layout=Layout(shards=3, quantization="scalar")), scope()
        index.of(tenant).upsert([point(text="tea")])
        assert found(index.of(tenant), text="tea")
        assert index.of(tenant).count() == 1
        assert index.features() == {}
        called = {method.rpartition("/")[2] for method in served.calls or []}
        assert {"HealthCheck", "Create", "CreateFieldIndex", "UpdateAliases", "Upsert", "QueryBatch", "Count"} <= called
        (made,) = asked(served, "create")
        assert (made.shard_number, made.hnsw_config.m, made.hnsw_config.payload_m) == (3, 0, 16)
        assert (made.strict_mode_config.enabled, made.strict_mode_config.unindexed_filtering_retrieve) == (True, False)
        assert made.quantization_config.scalar.type is models.ScalarType.INT8
        fields = {body.field_name: body.field_schema for body in asked(served, "index")}
        assert [name for name, schema in fields.items() if getattr(schema, "is_tenant", None)] == [Key.TENANT.value]
        by_meaning, by_words = (one for one in asked(served, "query"))
        assert str(tenant.tenant_id) in by_words.params.idf.corpus.model_dump_json()
        assert by_meaning.params.quantization.rescore
        index.close()
        # A stranger, a server that is away and one that is back, over gRPC too.
        stranger = open_server(Qdrant(served.url, "x" * 40, grpc_port=served.grpc_port))
        with pytest.raises(IndexUnavailable) as refused:
            stranger.of(scope()).upsert([point(text="canary")])
        assert "canary" not in str(refused.value)
        stranger.close()
        again = open_server(served, name="same", layout=Layout(shards=3, quantization="scalar"))
        assert again.count() == 1
        httpx.post(f"{served.url}/stop", trust_env=False)
        with pytest.raises(IndexUnavailable, match=r"index\.url"):
            again.count()
        httpx.post(f"{served.url}/go", trust_env=False)
        assert eventually_counts(again) == 1
        again.close()


def eventually_counts(index: ServerIndex) -> int:
    """Count once the channel has connected again, which gRPC puts off a little."""
    for _ in range(50):
        with suppress(IndexUnavailable):
            return index.count()
        time.sleep(0.1)
    return index.count()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tls, Path]:
    """A server's certificate by an authority of our own, and another authority that signed nothing."""
    return made_in(tmp_path_factory.mktemp("tls")), made_in(tmp_path_factory.mktemp("other")).authority


@pytest.mark.parametrize("grpc", [False, True], ids=["http", "grpc"])
def test_the_server_is_known_by_an_authority_of_our_own(certificates: tuple[Tls, Path], grpc: bool) -> None:
    tls, other = certificates
    with qdrant(api_key="k" * 40, grpc=grpc, tls=tls) as served:
        index = open_server(served)
        index.of(scope()).upsert([point(text="tea")])
        assert index.count() == 1
        index.close()
        for ca_file in (other, None):
            stranger = open_server(replace(served, ca_file=ca_file))
            with pytest.raises(IndexUnavailable):
                stranger.count()
            stranger.close()
        with pytest.raises(ConfigurationError, match=r"index\.ca_file .*: cannot be read"):
            open_server(replace(served, ca_file=tls.key.with_name("nowhere.pem")))


@pytest.mark.parametrize("grpc", [False, True], ids=["http", "grpc"])
def test_a_collection_that_is_there_is_brought_to_the_settings(grpc: bool) -> None:
    with qdrant(api_key="k" * 40, grpc=grpc) as served:
        open_and_close(served, Layout())
        assert asked(served, "update") == []
        # Nothing differs, nothing is sent.
        open_and_close(served, Layout())
        assert asked(served, "update") == []
        layout = Layout(replicas=2, write_consistency=2, quantization="binary", on_disk=True)
        assert open_and_close(served, layout) == {}
        (update,) = asked(served, "update")
        assert (update.params.replication_factor, update.params.write_consistency_factor) == (2, 2)
        assert update.quantization_config.binary.always_ram
        assert update.vectors["d"].on_disk
        assert open_and_close(served, layout) == {}
        assert len(asked(served, "update")) == 1
        assert open_and_close(served, Layout(quantization="none")) == {}
        assert asked(served, "update")[1].quantization_config == models.Disabled.DISABLED
        assert open_and_close(served, Layout()) == {}
        assert asked(served, "update")[2].quantization_config.scalar.type is models.ScalarType.INT8
        # The number of shards is for ever: told, until a rebuild makes another collection.
        index = open_server(served, name="same", layout=Layout(shards=4))
        index.of(scope()).upsert([point()])
        (told,) = index.features().values()
        assert told == (
            "off",
            "index.shards is 4, the collection was made with 1: `memvault index rebuild` makes it again",
        )
        index.close()


def open_and_close(served: Qdrant, layout: Layout) -> Mapping[str, tuple[str, str | None]]:
    """Open the index of the tests with settings, use it, and return what it says of itself."""
    index = open_server(served, name="same", layout=layout)
    index.count()
    told = index.features()
    index.close()
    return told


def test_a_field_without_its_index_gets_it(recorded: Qdrant) -> None:
    open_and_close(recorded, Layout())
    before = len(asked(recorded, "index"))
    made = asked(recorded, "made")
    made[0].fields.pop(Key.TOKENS.value)
    open_and_close(recorded, Layout())
    (added,) = asked(recorded, "index")[before:]
    assert added.field_name == Key.TOKENS.value
