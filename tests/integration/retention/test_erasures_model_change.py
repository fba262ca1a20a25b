"""Erasures while an embedding model is brought in: a receipt says nothing of an index that has the person's vectors."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.errors import IndexUnavailable, MemvaultError
from service.memories import changing
from service.memories.indexing import Indexing
from service.retention.ledger import ErasureStatus
from service.scope import Caller
from service.wiring import Services
from tests.conftest import Postgres, caller_of
from tests.integration.memories.model_changes import ask_for
from tests.integration.memories.test_model_change import agrees, opened
from tests.integration.retention.test_erasures import ALICE, add, finish
from tests.llm.embeddings import ScriptedEmbeddings
from tests.qdrant.serving import Qdrant, qdrant

pytestmark = pytest.mark.integration

CutShort = Callable[[Services], tuple[Caller, set[str]]]


@pytest.fixture
def words() -> Iterator[ScriptedEmbeddings]:
    """The model that is brought in."""
    with ScriptedEmbeddings() as server:
        yield server


@pytest.fixture(params=["embedded", "server"])
def index_url(request: pytest.FixtureRequest, stack: ExitStack) -> str | None:
    """Where each kind of index is."""
    if request.param == "embedded":
        return None
    running: Qdrant = stack.enter_context(qdrant())
    return running.url


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closes what was opened."""
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def cut_short(words: ScriptedEmbeddings, monkeypatch: pytest.MonkeyPatch) -> CutShort:
    """Brings the model in until its provider fails, with all of Alice and nothing of Bob in its index."""

    def go(services: Services) -> tuple[Caller, set[str]]:
        monkeypatch.setattr(changing, "_PAUSES", (0.01,))
        monkeypatch.setattr("service.memories.indexing._REBUILD_BATCH", 4)
        caller = caller_of(services, services.installation.tenants.create("acme").id)
        for number in range(4):
            add(services, caller, f"my diagnosis number {number}")
        for number in range(8):
            add(services, caller, f"note number {number}", user_id="bob")
        ask_for(services, words)
        words.fail(200, *[500] * 40)
        asked = len(words.calls)
        with pytest.raises(MemvaultError, match="failed"):
            services.change.run()
        words._failures.clear()
        return caller, set(words.calls[asked])

    return go


def indexes(data_dir: Path, url: str | None) -> int:
    """How many indexes there are, of one model each."""
    if url is None:
        return len(list(data_dir.glob("index*")))
    names = httpx.get(f"{url}/collections", trust_env=False).json()["result"]["collections"]
    return len({name["name"].rsplit("-", 1)[0] for name in names})


@contextmanager
def held(services: Services, words: ScriptedEmbeddings) -> Iterator[list[Any]]:
    """Go on with the change, held for the block once what was embedded before is in its index."""
    ended: list[Any] = []
    before = len(words.calls)
    words.hold()
    thread = threading.Thread(target=lambda: ended.append(services.change.run()))
    thread.start()
    try:
        words.wait_for_calls(before + 1)
        yield ended
    finally:
        words.release()
        thread.join(60)
    assert not thread.is_alive()


def test_an_erasure_takes_the_half_filled_index_along(
    index_url: str | None,
    words: ScriptedEmbeddings,
    stack: ExitStack,
    database: Postgres,
    data_dir: Path,
    cut_short: CutShort,
) -> None:
    services = opened(database, data_dir, stack, index_url)
    caller, _ = cut_short(services)
    again = add(services, caller, "written meanwhile", user_id="bob")
    assert indexes(data_dir, index_url) == 2
    erasure = services.erasures.request(caller, caller.scope, ALICE)
    done = finish(services, caller, erasure.id)
    assert done.status is ErasureStatus.COMPLETED
    assert done.receipt["receipt"]["checked"]["index_points_left"] == 0
    assert indexes(data_dir, index_url) == 1
    # The change goes on from the record, and the old model served throughout.
    assert services.change.state() is not None
    assert services.change.run() == 9
    services.indexing.drain()
    assert agrees(services, caller, database)
    assert services.index.of(caller.scope).existing([again]) == {again: 1}


def test_what_was_embedded_is_not_embedded_again_after_the_index_went(
    words: ScriptedEmbeddings, services: Services, database: Postgres, data_dir: Path, cut_short: CutShort
) -> None:
    caller, embedded = cut_short(services)
    assert len(embedded) == 4
    services.change.remove_idle()
    assert indexes(data_dir, None) == 1
    asked = len(words.calls)
    assert services.change.run() == 12
    assert embedded.isdisjoint(text for call in words.calls[asked:] for text in call)
    assert agrees(services, caller, database)


def test_no_receipt_while_the_half_filled_index_stays(
    services: Services, data_dir: Path, cut_short: CutShort, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller, _ = cut_short(services)
    erasure = services.erasures.request(caller, caller.scope, ALICE)
    with monkeypatch.context() as patched:
        patched.setattr("service.wiring.embedding.shutil.rmtree", lambda folder, **how: None)
        with pytest.raises(IndexUnavailable, match="cannot be removed"):
            finish(services, caller, erasure.id)
    with monkeypatch.context() as patched:
        # As a run leaves it that begins after the pass and is cut short before the check.
        patched.setattr(services.change, "remove_idle", lambda: None)
        with pytest.raises(IndexUnavailable, match="has not been removed yet"):
            services.erasing.purge()
    assert services.erasures.get(caller, caller.scope, erasure.id).status is ErasureStatus.PURGING
    assert services.erasing.purge() == 1
    assert indexes(data_dir, None) == 1


def test_the_index_that_is_being_filled_is_looked_at_too(
    words: ScriptedEmbeddings,
    services: Services,
    database: Postgres,
    cut_short: CutShort,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caller, _ = cut_short(services)
    with held(services, words) as ended:
        erasure = services.erasures.request(caller, caller.scope, ALICE)
        with monkeypatch.context() as patched:
            # As where the index fails in that moment: the deletion is left to the outbox.
            patched.setattr(Indexing, "apply", lambda *given, **named: None)
            services.erasing.run(str(caller.principal.tenant_id), str(erasure.id))
        assert services.erasing.purge() == 0
        assert services.change.count_beside(caller.scope, erasure.subject_id) == 4
        assert services.erasures.get(caller, caller.scope, erasure.id).status is ErasureStatus.RUNNING
    assert len(ended) == 1
    assert finish(services, caller, erasure.id).status is ErasureStatus.COMPLETED
    assert agrees(services, caller, database)


def test_a_change_that_is_gone_on_with_begins_without_what_was_deleted_meanwhile(
    words: ScriptedEmbeddings, services: Services, database: Postgres, cut_short: CutShort
) -> None:
    caller, _ = cut_short(services)
    erasure = services.erasures.request(caller, caller.scope, ALICE)
    services.erasing.run(str(caller.principal.tenant_id), str(erasure.id))
    with held(services, words):
        assert services.change.count_beside(caller.scope, erasure.subject_id) == 0
        assert finish(services, caller, erasure.id).status is ErasureStatus.COMPLETED
    assert agrees(services, caller, database)
