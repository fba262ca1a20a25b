"""Another embedding model is brought in while the service serves: on the embedded index and on a Qdrant server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import yaml

from service import clock, wiring
from service.errors import ConfigurationError, Conflict, IndexUnavailable, MemvaultError
from service.jobs.handlers import CHANGE_MODEL
from service.memories import changing
from service.memories.actions import Edit, Query
from service.memories.events import EXTRACT
from service.memories.indexing import Indexing
from service.scope import SYSTEM_TENANT, Caller
from service.settings import load_settings
from service.settings.tree import Embeddings
from service.storage.tasks import TaskState
from service.wiring import Services
from service.wiring.embedding import models_of
from tests.conftest import MakeServices, Postgres, caller_of
from tests.integration.memories.adding import add, found
from tests.integration.memories.model_changes import ask_for, changing_to
from tests.integration.memories.test_index_healing import ready
from tests.integration.memories.test_index_upkeep import eventually
from tests.llm.embeddings import ScriptedEmbeddings
from tests.qdrant.serving import Qdrant, qdrant

pytestmark = pytest.mark.integration

BUILT_IN = "all-MiniLM-L6-v2"


@pytest.fixture
def words() -> Iterator[ScriptedEmbeddings]:
    """The model that is brought in."""
    with ScriptedEmbeddings() as server:
        yield server


@pytest.fixture
def server() -> Iterator[Qdrant]:
    """A Qdrant server."""
    with qdrant() as running:
        yield running


@pytest.fixture(params=["embedded", "server"])
def index_url(request: pytest.FixtureRequest) -> str | None:
    """Where each kind of index is."""
    if request.param == "embedded":
        return None
    running: Qdrant = request.getfixturevalue("server")
    return running.url


def opened(database: Postgres, data_dir: Path, stack: ExitStack, index_url: str | None, **sections: Any) -> Services:
    """Open services on one kind of index, once they answer searches. A Qdrant server is spoken to by HTTP."""
    config = data_dir / "memvault.yaml"
    index = {} if index_url is None else {"index": {"url": index_url, "grpc_port": None}}
    config.write_text(yaml.safe_dump(index | sections), encoding="utf-8")
    settings = load_settings(environ={}, config=config, flags={"data_dir": data_dir})
    installation = wiring.open_installation(settings, wiring.Connections(database.app, database.owner), stack)
    services = wiring.open_services(installation, stack)
    eventually(lambda: ready(services))
    return services


def replicas(database: Postgres, data_dir: Path, stack: ExitStack, server: Qdrant) -> tuple[Services, Services, Caller]:
    """Open two services on one Qdrant server, and return them with a caller of a new tenant."""
    one, other = (opened(database, data_dir, stack, server.url) for _ in range(2))
    return one, other, caller_of(one, one.installation.tenants.create("acme").id)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closes what was opened."""
    with ExitStack() as opened:
        yield opened


def readiness(services: Services) -> tuple[str, str | None] | None:
    """What readiness says of the embedding model."""
    return next(((one.state, one.reason) for one in services.readiness() if one.name == "embedding model"), None)


def semantic(services: Services, caller: Caller, query: str) -> dict[str, float]:
    """How near each memory is to a query by meaning."""
    hits = services.memories.search(caller, caller.scope, Query(query, limit=50))
    return {hit.memory.text: round(hit.signals.semantic or 0.0, 3) for hit in hits}


def agrees(services: Services, caller: Caller, database: Postgres) -> bool:
    """Whether the index has the memories of the record in the same versions, and nothing else."""
    with psycopg.connect(database.admin) as admin:
        rows = admin.execute("SELECT id, version FROM memories").fetchall()
    part = services.index.of(caller.scope)
    return services.index.count() == len(rows) and part.existing([row[0] for row in rows]) == dict(rows)


def test_a_model_is_brought_in_while_everything_goes_on(
    index_url: str | None, words: ScriptedEmbeddings, stack: ExitStack, database: Postgres, data_dir: Path
) -> None:
    services = opened(database, data_dir, stack, index_url)
    caller = caller_of(services, services.installation.tenants.create("acme").id)
    added = add(services, caller, *(f"note number {number}" for number in range(10)), "She drinks tea").results
    ids = {f"note number {number}": added[number].memory_id for number in range(10)}
    with changing_to(services, words, held_at=1) as ended:
        # The old model serves: it finds by meaning, without a word in common.
        assert semantic(services, caller, "hot beverages")["She drinks tea"] > 0.3
        assert readiness(services) == ("starting", f"0 of 11 memories are embedded by {words.name}; {BUILT_IN} serves")
        new = add(services, caller, "She lives in Rome").results[0].memory_id
        services.memories.delete(caller, caller.scope, ids["note number 1"])
        services.memories.update(caller, caller.scope, ids["note number 2"], Edit(text="She owns a bicycle"))
        services.memories.update(caller, caller.scope, ids["note number 3"], Edit(metadata={"a": 1}))
        assert found(services, caller, "Rome")[0] == "She lives in Rome"
        services.indexing.drain()
        assert ended == []
    assert len(ended) == 1
    assert isinstance(ended[0], int), ended
    before = len(words.calls)
    assert found(services, caller, "lives Rome")[0] == "She lives in Rome"
    assert words.calls[before:] == [["lives Rome"]]
    near = semantic(services, caller, "She owns a bicycle")
    assert near["She owns a bicycle"] == 1.0
    assert "note number 1" not in near
    assert services.index.of(caller.scope).existing([new]) == {new: 1}
    assert agrees(services, caller, database)
    # The trail of the service's own tenant says what was changed to what, by providers and numbers.
    with psycopg.connect(database.admin) as admin:
        query = "SELECT tenant_id, face, outcome, detail FROM audit WHERE event = 'embedder:changed'"
        ((tenant_id, *row),) = admin.execute(query).fetchall()
    detail = {"before": "minilm", "after": "openai", "before_dimensions": 384, "dimensions": words.dimensions}
    assert tenant_id == SYSTEM_TENANT
    assert row == ["cli", "done", detail | {"generation": 2, "memories": ended[0]}]
    # The settings of this process name the old one still.
    assert BUILT_IN in str(readiness(services))
    # What is written from now on is of the new model, and the record has no vector of the old one but by the outbox.
    add(services, caller, "She reads books")
    assert semantic(services, caller, "She reads books")["She reads books"] == 1.0
    services.indexing.drain()
    with psycopg.connect(database.admin) as admin:
        assert admin.execute("SELECT DISTINCT embedder FROM memories").fetchall() == [(words.name,)]
    if index_url is None:
        assert [folder.name for folder in sorted(data_dir.glob("index*"))] == ["index-2"]


def test_the_model_that_serves_is_kept_whatever_the_settings_say(
    words: ScriptedEmbeddings, database: Postgres, data_dir: Path
) -> None:
    with ExitStack() as stack:
        services = opened(database, data_dir, stack, None)
        tenant = services.installation.tenants.create("acme").id
        caller = caller_of(services, tenant)
        add(services, caller, "She drinks tea", "She lives in Rome")
        ask_for(services, words)
        assert services.change.run() == 2
    # The old settings: it serves with the new model, and says what to do.
    with ExitStack() as stack:
        services = opened(database, data_dir, stack, None)
        state, reason = readiness(services) or ("", "")
        assert state == "off"
        assert f"the settings name {BUILT_IN} (384 dimensions), the index is of {words.name} (24)" in str(reason)
        assert "`memvault index rebuild --embedder minilm`" in str(reason)
        assert semantic(services, caller_of(services, tenant), "She drinks tea")["She drinks tea"] == 1.0
        assert services.index.is_complete()
    with ExitStack() as stack:
        services = opened(database, data_dir, stack, None, embeddings=words.settings)
        assert readiness(services) is None
        assert agrees(services, caller_of(services, tenant), database)
        # And back, to the one that needs no server.
        back = services.settings.model_copy(update={"embeddings": Embeddings()})
        wiring.ask_for(replace(services.installation, settings=back), "minilm")
        assert services.change.run() == 2
        assert semantic(services, caller_of(services, tenant), "hot beverages")["She drinks tea"] > 0.3


def test_a_provider_that_fails_leaves_the_old_model_serving_and_is_gone_on_with(
    words: ScriptedEmbeddings, services: Services, caller: Caller, monkeypatch: pytest.MonkeyPatch, database: Postgres
) -> None:
    monkeypatch.setattr(changing, "_PAUSES", (0.01,))
    monkeypatch.setattr("service.memories.indexing._REBUILD_BATCH", 4)
    add(services, caller, *(f"note number {number}" for number in range(10)))
    ask_for(services, words)
    asked = len(words.calls)
    with psycopg.connect(database.admin, autocommit=True) as admin:
        admin.execute("UPDATE memories SET updated_at = updated_at")
    words.fail(200, *[500] * 8)
    with pytest.raises(MemvaultError, match="failed"):
        services.change.run()
    assert found(services, caller, "note number 3")[0] == "note number 3"
    assert services.change.state() is not None
    words.fail()
    words._failures.clear()
    first = {text for call in words.calls[asked : asked + 1] for text in call}
    assert len(first) == 4
    again = len(words.calls)
    assert services.change.run() == 10
    # What was embedded before is not embedded again.
    assert first.isdisjoint(text for call in words.calls[again:] for text in call)
    assert agrees(services, caller, database)


def test_what_is_written_during_a_long_comparison_reaches_the_new_index(
    words: ScriptedEmbeddings, services: Services, caller: Caller, monkeypatch: pytest.MonkeyPatch, database: Postgres
) -> None:
    ids = [one.memory_id for one in add(services, caller, *(f"note number {number}" for number in range(10))).results]
    ask_for(services, words)
    agree, now = Indexing.agree, clock.now
    drained = []

    def long(indexing: Indexing, *given: Any) -> None:
        """A comparison that has passed these memories, takes minutes more, and meets the upkeep of the index."""
        agree(indexing, *given)
        add(services, caller, "She lives in Rome")
        services.memories.update(caller, caller.scope, ids[3], Edit(text="She owns a bicycle"))
        with monkeypatch.context() as later:
            later.setattr(clock, "now", lambda: now() + timedelta(minutes=5))
            drained.append(services.indexing.drain())

    with monkeypatch.context() as patched:
        patched.setattr(Indexing, "agree", long)
        assert services.change.run() == 10
    assert drained == [0]
    assert agrees(services, caller, database)
    assert found(services, caller, "lives Rome")[0] == "She lives in Rome"
    assert found(services, caller, "owns bicycle")[0] == "She owns a bicycle"
    # Nothing is kept longer than it is needed.
    services.indexing.drain()
    with psycopg.connect(database.admin) as admin:
        assert admin.execute("SELECT count(*) FROM outbox").fetchall() == [(0,)]


def test_a_comparison_says_that_it_is_alive(
    words: ScriptedEmbeddings, services: Services, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.memories.agreement._PAGE", 2)
    add(services, caller, *(f"note number {number}" for number in range(10)))
    ask_for(services, words)
    told: list[int] = []
    assert services.change.run(told.append) == 10
    # Once for each part of the points and of the memories, beside those of the copying.
    assert told.count(10) > 10


def test_a_change_whose_provider_takes_long_is_not_taken_for_dead(
    index_url: str | None,
    words: ScriptedEmbeddings,
    stack: ExitStack,
    database: Postgres,
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(changing, "_SIGN_EVERY", 0.05)
    services = opened(database, data_dir, stack, index_url)
    add(services, caller_of(services, services.installation.tenants.create("acme").id), "She drinks tea")
    signs = {"embedding_models": "state = 'filling'"}
    if index_url is not None:
        signs["tasks"] = "kind = 'fill_index' AND state = 'running'"
    with (
        psycopg.connect(database.admin, autocommit=True) as admin,
        changing_to(services, words, held_at=1) as ended,
    ):
        for table, which in signs.items():
            moved = admin.execute(f"UPDATE {table} SET updated_at = now() - interval '3 minutes' WHERE {which}")  # type: ignore[arg-type]
            assert moved.rowcount == 1
            fresh = f"SELECT 1 FROM {table} WHERE {which} AND updated_at > now() - interval '1 minute'"
            eventually(lambda fresh=fresh: bool(admin.execute(fresh).fetchall()))  # type: ignore[misc]
        assert ended == []
    assert ended == [1]


def test_jobs_of_a_change_that_is_under_way_keep_no_place_in_the_queue(
    words: ScriptedEmbeddings, make_services: MakeServices, monkeypatch: pytest.MonkeyPatch, database: Postgres
) -> None:
    monkeypatch.setattr("service.queue.tasks._LONGEST_WAIT_SECONDS", 1)
    services = make_services(worker=True, queue={"concurrency": 1, "poll_interval": 0.1})
    caller = caller_of(services, services.installation.tenants.create("acme").id)
    add(services, caller, "She drinks tea")
    queue, tasks = services.installation.queue, services.installation.tasks
    with changing_to(services, words, held_at=1), psycopg.connect(database.admin, autocommit=True) as admin:
        with services.installation.database.tenant_blind() as connection:
            task_id = tasks.start(connection, CHANGE_MODEL)
            queue.defer(connection, CHANGE_MODEL, {"task_id": str(task_id)})
            queue.defer(connection, EXTRACT, {"tenant_id": str(caller.principal.tenant_id), "event_id": str(task_id)})
        jobs = "SELECT count(*) FROM procrastinate_jobs WHERE task_name = %s"
        eventually(lambda: admin.execute(jobs, [EXTRACT]).fetchall() == [(0,)])
        assert admin.execute(jobs, [CHANGE_MODEL]).fetchall() == [(1,)]
    eventually(lambda: tasks.get(task_id).state is TaskState.SUCCEEDED)


def test_a_change_that_was_left_is_taken_up_by_one_job(
    words: ScriptedEmbeddings, services: Services, database: Postgres
) -> None:
    ask_for(services, words)
    jobs = "SELECT count(*) FROM procrastinate_jobs WHERE task_name = %s"
    with psycopg.connect(database.admin, autocommit=True) as admin:
        services.jobs.sweep(0)
        assert admin.execute(jobs, [CHANGE_MODEL]).fetchall() == [(0,)]
        for _ in range(2):
            admin.execute("UPDATE embedding_models SET updated_at = now() - interval '3 minutes'")
            services.jobs.sweep(0)
            assert admin.execute(jobs, [CHANGE_MODEL]).fetchall() == [(1,)]


def test_a_clock_that_is_ahead_takes_no_change_for_left(
    words: ScriptedEmbeddings, services: Services, database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_for(services, words)
    now = clock.now
    monkeypatch.setattr(clock, "now", lambda: now() + timedelta(minutes=5))
    services.jobs.sweep(0)
    with psycopg.connect(database.admin) as admin:
        jobs = admin.execute("SELECT count(*) FROM procrastinate_jobs WHERE task_name = %s", [CHANGE_MODEL])
        assert jobs.fetchall() == [(0,)]
    models = models_of(services.installation)
    assert models.begin("another", 32, {}, total=0, stale_after=changing.STALE_AFTER) is None


def test_whoever_does_the_work_waits_as_long_as_whoever_asked_for_it_says(
    words: ScriptedEmbeddings, services: Services
) -> None:
    settings = services.settings.model_copy(update={"embeddings": Embeddings(**words.settings, timeout=77)})
    model = wiring.ask_for(replace(services.installation, settings=settings), "openai")
    assert model is not None
    assert model.settings["timeout"] == 77


def test_a_model_that_is_not_as_the_settings_say_is_refused_before_anything_begins(
    words: ScriptedEmbeddings, services: Services
) -> None:
    words.dimensions = 32
    wrong = Embeddings(**{**words.settings, "dimensions": 24})
    installation = services.installation
    settings = services.settings.model_copy(update={"embeddings": wrong})
    with pytest.raises(MemvaultError, match="check the model and the dimensions"):
        wiring.ask_for(replace(installation, settings=settings), "openai")
    with pytest.raises(ConfigurationError, match="--embedder ollama: the settings name minilm"):
        wiring.ask_for(installation, "ollama")
    assert wiring.ask_for(installation, "minilm") is None
    assert services.change.run() == 0
    ask_for(services, words)
    with ScriptedEmbeddings(model="other") as other, pytest.raises(Conflict, match="is being brought in"):
        ask_for(services, other)


def test_the_other_replica_takes_the_new_model_with_the_switch(
    server: Qdrant,
    words: ScriptedEmbeddings,
    database: Postgres,
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ExitStack() as stack:
        one, other, caller = replicas(database, data_dir, stack, server)
        add(one, caller, *(f"note number {number}" for number in range(5)))
        with changing_to(one, words, held_at=1):
            eventually(lambda: readiness(other) is not None)
            add(other, caller, "She lives in Rome")
            assert found(other, caller, "Rome")[0] == "She lives in Rome"
        eventually(lambda: (readiness(other) or ("",))[0] == "off")
        for services in (one, other):
            assert semantic(services, caller, "She lives in Rome")["She lives in Rome"] == 1.0
        add(other, caller, "She drinks tea")
        assert found(one, caller, "She drinks tea")[0] == "She drinks tea"
        assert agrees(one, caller, database)
        # The old model's collection goes once nobody can be asking it any more.
        monkeypatch.setattr(changing, "STALE_AFTER", changing.STALE_AFTER * 0)
        one.change.tidy()
        names = httpx.get(f"{server.url}/collections", trust_env=False).json()["result"]["collections"]
        assert len({name["name"].rsplit("-", 1)[0] for name in names}) == 1
        assert found(other, caller, "She drinks tea")[0] == "She drinks tea"


def test_a_model_that_is_brought_back_keeps_its_index(
    index_url: str | None,
    words: ScriptedEmbeddings,
    stack: ExitStack,
    database: Postgres,
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    services = opened(database, data_dir, stack, index_url)
    caller = caller_of(services, services.installation.tenants.create("acme").id)
    add(services, caller, "She lives in Rome", "She drinks tea")
    with changing_to(services, words, held_at=1):
        pass
    # The settings of this process name the old model.
    wiring.ask_for(services.installation, "minilm")
    services.change.run()
    monkeypatch.setattr(changing, "STALE_AFTER", changing.STALE_AFTER * 0)
    for _ in range(2):
        services.change.tidy()
    assert semantic(services, caller, "hot beverages")["She drinks tea"] > 0.3
    assert agrees(services, caller, database)
    with psycopg.connect(database.admin) as admin:
        rows = admin.execute("SELECT generation, name, state FROM embedding_models").fetchall()
    assert rows == [(3, BUILT_IN, "serving")]
    if index_url is None:
        assert [folder.name for folder in data_dir.glob("index*")] == ["index-3"]
    else:
        names = httpx.get(f"{index_url}/collections", trust_env=False).json()["result"]["collections"]
        assert len({name["name"].rsplit("-", 1)[0] for name in names}) == 1


def test_what_a_failed_comparison_behind_the_switch_left_out_is_found(
    server: Qdrant,
    words: ScriptedEmbeddings,
    database: Postgres,
    data_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ExitStack() as stack:
        one, other, caller = replicas(database, data_dir, stack, server)
        add(one, caller, *(f"note number {number}" for number in range(3)))
        ask_for(one, words)
        eventually(lambda: readiness(other) is not None)
        agree, now, compared = Indexing.agree, clock.now, 0

        def long(indexing: Indexing, *given: Any) -> None:
            """A comparison of minutes, in which the other replica writes and forgets its outbox rows; the second of
            them, behind the switch, does not come to its end."""
            nonlocal compared
            compared += 1
            if compared == 2:
                raise IndexUnavailable("the index was away for a moment")
            agree(indexing, *given)
            add(other, caller, "She lives in Rome")
            with monkeypatch.context() as later:
                later.setattr(clock, "now", lambda: now() + timedelta(minutes=5))
                other.indexing.drain()

        with monkeypatch.context() as patched:
            patched.setattr(Indexing, "agree", long)
            with pytest.raises(IndexUnavailable):
                one.change.run()
        assert "She lives in Rome" not in found(one, caller, "lives Rome")
        monkeypatch.setattr(changing, "STALE_AFTER", changing.STALE_AFTER * 0)
        one.change.tidy()
        one.indexing.drain()
        assert found(one, caller, "lives Rome")[0] == "She lives in Rome"
        assert agrees(one, caller, database)


def test_a_text_that_the_new_model_does_not_take_stops_nothing_else(
    words: ScriptedEmbeddings, services: Services, caller: Caller, database: Postgres
) -> None:
    texts = [f"note number {number}" for number in range(10)]
    poison = add(services, caller, *texts, "She drinks poison").results[-1].memory_id
    ask_for(services, words)
    words.refused = "poison"
    assert services.change.run() == 10
    assert set(found(services, caller, "note number")) == set(texts)
    # It waits in the outbox and is told of, and what comes behind it does not wait.
    add(services, caller, "She reads books")
    services.indexing.drain()
    assert services.indexing.left_out > 0
    with psycopg.connect(database.admin) as admin:
        assert admin.execute("SELECT DISTINCT memory_id FROM outbox").fetchall() == [(poison,)]
    words.refused = None
    services.indexing.drain()
    assert services.indexing.left_out == 0
    assert found(services, caller, "poison")[0] == "She drinks poison"
    assert agrees(services, caller, database)


def test_a_model_that_takes_no_text_does_not_come_to_serve(
    words: ScriptedEmbeddings, services: Services, caller: Caller, database: Postgres
) -> None:
    add(services, caller, "She drinks tea", "She lives in Rome")
    ask_for(services, words)
    words.refused = ""
    with pytest.raises(MemvaultError, match="failed"):
        services.change.run()
    assert semantic(services, caller, "hot beverages")["She drinks tea"] > 0.3
    assert agrees(services, caller, database)
