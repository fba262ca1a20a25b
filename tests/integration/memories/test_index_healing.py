"""The index comes right again whatever interrupts that, and what cannot be read holds up nothing else."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from service import clock, wiring
from service.embeddings import EmbeddingUnavailable
from service.errors import IndexUnavailable, KeyringUnavailable
from service.filters.ast import EVERYTHING
from service.filters.build import subjects_filter
from service.index.edge import EdgeIndex
from service.memories import changing as changing_module
from service.memories import indexing as indexing_module
from service.memories.actions import Edit, Query
from service.records import SubjectNames
from service.scope import Caller, SubjectKind
from service.settings import load_settings
from service.wiring import Services
from tests.conftest import MakeServices, Postgres, caller_of
from tests.integration.memories.adding import add, found
from tests.integration.memories.model_changes import ask_for, changing_to
from tests.integration.memories.test_index_upkeep import eventually
from tests.integration.portability.test_round_trip import imported
from tests.llm.embeddings import ScriptedEmbeddings

pytestmark = pytest.mark.integration

Open = Callable[..., Any]


@pytest.fixture
def opened(database: Postgres, data_dir: Path) -> Open:
    """Open services for a block, as one process after the other does."""

    @contextmanager
    def go(*, upkeep: bool = True) -> Iterator[Services]:
        settings = load_settings(environ={}, flags={"data_dir": data_dir})
        with ExitStack() as stack:
            connections = wiring.Connections(database.app, database.owner)
            installation = wiring.open_installation(settings, connections, stack)
            yield wiring.open_services(installation, stack, upkeep=upkeep)

    return go


def ready(services: Services) -> bool:
    """Whether searches are answered."""
    services.indexing.check()
    return True


def upkeep(services: Services) -> tuple[str, str | None]:
    """The upkeep as readiness tells it."""
    return next((part.state, part.reason) for part in services.readiness() if part.name == "upkeep")


def lose_index(data_dir: Path) -> None:
    """The whole folder is gone."""
    shutil.rmtree(data_dir / "index")


def damage_index(data_dir: Path) -> None:
    """It is there and cannot be used."""
    (data_dir / "index" / "current").write_text("{")


@pytest.mark.parametrize("harm", [lose_index, damage_index])
def test_a_heal_that_was_cut_short_is_begun_again(harm: Callable[[Path], None], opened: Open, data_dir: Path) -> None:
    with opened() as services:
        caller = caller_of(services, services.installation.tenants.create("acme").id)
        add(services, caller, *(f"old memory number {number}" for number in range(20)))
        services.indexing.drain()
    harm(data_dir)
    # A process that takes an add and ends before the index is whole.
    with opened(upkeep=False) as services:
        add(services, caller, "a new memory")
        with pytest.raises(IndexUnavailable):
            services.indexing.check()
        assert services.index.count() == 1
    with opened() as services:
        eventually(lambda: ready(services))
        assert services.index.count() == 21
        assert found(services, caller, "old memory number 3")[0] == "old memory number 3"
    with opened(upkeep=False) as services:
        assert services.index.is_complete()


def test_a_rebuild_makes_searches_answer_again(opened: Open) -> None:
    with opened(upkeep=False) as services:
        caller = caller_of(services, services.installation.tenants.create("acme").id)
        add(services, caller, "tea")
        services.jobs.rebuild(lambda done: None)
        assert found(services, caller, "tea") == ["tea"]


def test_the_index_keeps_in_mind_whether_it_is_complete(tmp_path: Path) -> None:
    def complete(*, after: Callable[[EdgeIndex], object] = lambda index: None, fresh: bool = False) -> bool:
        index = EdgeIndex(tmp_path, dimensions=8, model="test", fresh=fresh)
        try:
            after(index)
            return index.is_complete()
        finally:
            index.close()

    def abandon(index: EdgeIndex) -> None:
        with pytest.raises(ZeroDivisionError), index.rebuild():
            raise ZeroDivisionError

    def rebuild(index: EdgeIndex) -> None:
        with index.rebuild():
            pass

    assert not complete()
    assert not complete(after=abandon)
    assert not complete(after=EdgeIndex.compact)
    assert complete(after=rebuild)
    assert complete(after=EdgeIndex.compact)
    assert complete()
    assert not complete(fresh=True)
    assert complete(after=EdgeIndex.mark_complete)
    assert complete()


def test_the_upkeep_survives_what_nobody_thought_of_and_says_so(services: Services, database: Postgres) -> None:
    caller = caller_of(services, services.installation.tenants.create("acme").id)
    eventually(lambda: upkeep(services) == ("ok", None))
    with psycopg.connect(database.admin, autocommit=True) as admin:
        admin.execute("ALTER TABLE outbox RENAME TO away")
        eventually(lambda: upkeep(services)[0] == "failed")
        assert "ProgrammingError" in str(upkeep(services)[1])
        admin.execute("ALTER TABLE away RENAME TO outbox")
    eventually(lambda: upkeep(services) == ("ok", None))
    add(services, caller, "tea")
    eventually(lambda: services.outbox.size() == 0)


def test_memories_whose_key_is_missing_hold_up_no_others(
    services: Services, caller: Caller, database: Postgres, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing_module, "_REBUILD_BATCH", 5)
    lost = add(services, caller, *(f"number {number} of alice" for number in range(12))).results[0].memory_id
    add(services, caller, "what bob said", user="bob")
    services.indexing.drain()
    with services.installation.database.transaction(caller.scope) as connection:
        name = (SubjectKind.USER, "alice")
        subject_id = services.installation.subjects.find(connection, caller.scope, [name])[name]
    path = next((data_dir / "keys").rglob(f"{subject_id}.key"))
    wrapped = path.read_bytes()
    path.write_bytes(os.urandom(len(wrapped)))
    services.installation.keyring._cache.clear()  # type: ignore[attr-defined]

    # A list or a search shows what there is; a call that is about such a row alone is told why not.
    page = services.memories.list(caller, caller.scope, EVERYTHING, page=1, size=50, on=None)
    assert [memory.text for memory in page.items] == ["what bob said"]
    assert found(services, caller, "number 3", limit=50) == ["what bob said"]
    for call in (
        lambda: services.memories.get(caller, caller.scope, lost),
        lambda: services.memories.update(caller, caller.scope, lost, Edit(metadata={"a": 1})),
        lambda: services.memories.delete_all(caller, caller.scope, SubjectNames(user_id="alice")),
        lambda: services.memories.list(
            caller, caller.scope, subjects_filter(SubjectNames(user_id="alice")), page=1, size=5, on=None
        ),
    ):
        with pytest.raises(KeyringUnavailable):
            call()

    # The same without the request: a rebuild and the outbox go on with the others, and nothing is forgotten.
    assert services.jobs.rebuild(lambda done: None) == 1
    assert services.index.count() == 1
    add(services, caller, "what bob said later", user="bob")
    assert services.indexing.drain() == 1
    assert services.outbox.size() == services.indexing.left_out == 12
    assert upkeep(services)[0] == "failed"

    path.write_bytes(wrapped)
    assert services.indexing.drain() == 12
    assert services.indexing.left_out == 0
    assert services.index.count() == 14
    assert found(services, caller, "number 3 of alice")[0] == "number 3 of alice"
    eventually(lambda: upkeep(services) == ("ok", None))


def test_a_row_that_cannot_be_indexed_holds_up_no_others(
    services: Services, caller: Caller, database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [result.memory_id for result in add(services, caller, *(f"note {number}" for number in range(9))).results]
    services.indexing.drain()
    real = services.indexing._point

    def point(scope: Any, entry: Any) -> Any:
        made = real(scope, entry)
        return replace(made, dense=np.full(384, np.nan)) if made.memory_id == ids[4] else made

    with monkeypatch.context() as patched:
        patched.setattr(services.indexing, "_point", point)
        for memory_id in ids:
            services.memories.update(caller, caller.scope, memory_id, Edit(metadata={"a": 1}))
        assert services.indexing.behind
        services.indexing.drain()
        assert services.indexing.left_out == services.outbox.size() == 1
        assert services.index.of(caller.scope).existing(ids) == {one: 1 if one == ids[4] else 2 for one in ids}
    services.indexing.drain()
    assert services.index.of(caller.scope).existing(ids) == dict.fromkeys(ids, 2)


def test_a_row_that_cannot_be_read_ends_no_rebuild(
    services: Services, caller: Caller, database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexing_module, "_REBUILD_BATCH", 4)
    ids = [result.memory_id for result in add(services, caller, *(f"note {number}" for number in range(9))).results]
    other = caller_of(services, services.installation.tenants.create("other").id)
    add(services, other, "what the other said")
    services.indexing.drain()
    with psycopg.connect(database.admin, autocommit=True) as admin:
        admin.execute("UPDATE memories SET created_at = '0001-06-01 BC' WHERE id = ANY(%s)", [[ids[1], ids[6]]])
        assert services.jobs.rebuild(lambda done: None) == 8
        assert found(services, other, "what the other said") == ["what the other said"]
        assert services.index.of(caller.scope).existing(ids).keys() == set(ids) - {ids[1], ids[6]}
        services.indexing.drain()
        assert services.outbox.size() == services.indexing.left_out == 2

        admin.execute("UPDATE memories SET created_at = updated_at WHERE id = ANY(%s)", [[ids[1], ids[6]]])
    services.indexing.drain()
    assert (services.outbox.size(), services.indexing.left_out, services.index.count()) == (0, 0, 10)


def test_a_deleted_memory_does_not_come_back_by_a_late_write(
    services: Services, caller: Caller, database: Postgres
) -> None:
    memory_id = add(services, caller, "tea").results[0].memory_id
    services.indexing.drain()
    with services.installation.database.transaction(caller.scope) as connection:
        entry = services.memories._stores.record.index_entries(connection, caller.scope, [memory_id])[memory_id]
    with psycopg.connect(database.admin, autocommit=True) as admin:
        admin.execute("DELETE FROM memories")
        admin.execute(
            "INSERT INTO outbox (tenant_id, memory_id, version, created_at) VALUES (%s, %s, 2, now())",
            [caller.principal.tenant_id, memory_id],
        )
    services.indexing.drain()
    assert services.index.count() == 0
    services.indexing.apply(caller.scope, [replace(entry, memory=replace(entry.memory, version=3))])
    assert services.index.count() == 0


def test_a_new_model_does_not_overwrite_what_was_changed_meanwhile(
    services: Services, caller: Caller, database: Postgres
) -> None:
    memory_id = add(services, caller, "I live in Rome").results[0].memory_id
    with ScriptedEmbeddings() as model:
        with changing_to(services, model, held_at=1) as ended:
            # Neither a lock nor a transaction is held while the model works.
            services.memories.update(caller, caller.scope, memory_id, Edit(text="I live in Oslo"))
        assert ended == [1]
        for _ in range(2):
            hits = services.memories.search(caller, caller.scope, Query("I live in Oslo"))
            assert [(hit.memory.text, round(hit.signals.semantic, 3)) for hit in hits] == [("I live in Oslo", 1.0)]
            services.jobs.rebuild(lambda done: None)
        with psycopg.connect(database.admin) as admin:
            assert admin.execute("SELECT embedder, version FROM memories").fetchall() == [(model.name, 2)]


def test_an_edit_of_the_metadata_does_not_bring_in_another_model_s_vector(
    services: Services, caller: Caller, database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory_id = add(services, caller, "I live in Oslo").results[0].memory_id
    services.indexing.drain()
    monkeypatch.setattr(changing_module, "_PAUSES", ())
    with ScriptedEmbeddings() as model:
        ask_for(services, model)
        # The record has the new model's vector of it already; the old model serves on.
        model.fail(200, *[500] * 4)
        add(services, caller, "I drink tea", user="bob")
        monkeypatch.setattr(indexing_module, "_REBUILD_BATCH", 1)
        with pytest.raises(EmbeddingUnavailable):
            services.change.run()
        with psycopg.connect(database.admin) as admin:
            of = dict(admin.execute("SELECT id, embedder FROM memories").fetchall())
        assert of[memory_id] == model.name
        services.memories.update(caller, caller.scope, memory_id, Edit(metadata={"a": 1}))
        services.indexing.drain()
        assert services.index.of(caller.scope).existing([memory_id]) == {memory_id: 2}
        hits = services.memories.search(caller, caller.scope, Query("I live in Oslo"))
        assert round(hits[0].signals.semantic, 3) == 1.0


def test_the_index_is_not_made_durable_with_every_write(
    make_services: MakeServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[float] = []
    real = EdgeIndex.flush

    def flush(index: EdgeIndex) -> None:
        flushed.append(time.monotonic())
        real(index)

    monkeypatch.setattr(EdgeIndex, "flush", flush)
    services = make_services()
    caller = caller_of(services, services.installation.tenants.create("acme").id)
    eventually(lambda: ready(services))
    until, number = time.monotonic() + 4, 0
    while time.monotonic() < until:
        add(services, caller, f"note {number}")
        number += 1
        time.sleep(0.1)
    assert len(flushed) <= 1
    assert services.outbox.size() > 0
    eventually(lambda: services.outbox.size() == 0)


def test_what_an_index_that_is_behind_finds_is_read_as_the_record_has_it(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has come to be another's, has expired or meets the filter no more cannot be seen by what the index says."""
    with opened(upkeep=False) as services:
        caller = caller_of(services, services.installation.tenants.create("acme").id)
        bound = caller_of(services, caller.principal.tenant_id, users=frozenset({"alice"}))
        texts = [f"tea from {place}" for place in ("Assam", "Ceylon", "Darjeeling", "Nepal")]
        ids = [one.memory_id for one in add(services, caller, *texts, metadata={"kind": "old"}).results]
        services.jobs.rebuild(lambda done: None)
        assert len(found(services, bound, "tea", {"metadata": {"kind": "old"}})) == 4
        monkeypatch.setattr(type(services.indexing), "apply", lambda *given, **more: None)
        services.memories.update(caller, caller.scope, ids[0], Edit(expires_on=clock.today() - timedelta(days=1)))
        services.memories.update(caller, caller.scope, ids[1], Edit(metadata={"kind": "new"}))
        services.memories.delete(caller, caller.scope, ids[2])
        moment = clock.now().isoformat()
        line = {"type": "memory", "id": str(ids[2]), "text": "tea of bob", "user_id": "bob", "created_at": moment}
        imported(services, caller, [line | {"updated_at": moment, "metadata": {"kind": "old"}}])
        assert services.index.of(caller.scope).versions()[0] == dict.fromkeys(ids, 1)
        assert found(services, bound, "tea", {"metadata": {"kind": "old"}}) == [texts[3]]
        assert sorted(found(services, bound, "tea")) == [texts[1], texts[3]]
