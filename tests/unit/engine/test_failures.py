"""Each way in which an extraction can fail has its own error, stages nothing, and repeats nothing that was said."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from service.embeddings import Embedder, EmbeddingRefused, EmbeddingUnavailable, Matrix, Vector
from service.engine import (
    EmbeddingFailed,
    Engine,
    EngineError,
    LlmAnswerMalformed,
    LlmAnswerUnparsable,
    LlmRateLimited,
    LlmRejected,
    LlmUnavailable,
    StagingMismatch,
    StoreAway,
)
from service.engine.provider import failure_of
from service.errors import IndexUnavailable
from service.records import Message, SubjectNames
from tests.llm.fixtures import Shelf
from tests.llm.scripted import ODD_SHAPES, ScriptedLLM

pytestmark = pytest.mark.integration

CANARY = "canary-5e1f"
ALICE = SubjectNames(user_id=f"{CANARY}-user")
SAID = [Message("user", f"I like {CANARY} tea", name=f"{CANARY}-name")]


@pytest.fixture
def shelf() -> Shelf:
    return Shelf.of(f"Alice has a {CANARY} cat", messages=[Message("user", f"Earlier {CANARY}")])


@pytest.fixture(autouse=True)
def nothing_is_told(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """With every logger that can be asked at DEBUG, neither logs nor standard streams repeat content."""
    caplog.set_level(logging.DEBUG)
    yield
    printed = capfd.readouterr()
    logged = "\n".join(logging.Formatter().format(record) for record in caplog.get_records("call"))
    assert CANARY not in logged
    assert CANARY not in printed.out + printed.err


def failure(engine: Engine, shelf: Shelf, **options: Any) -> EngineError:
    with pytest.raises(EngineError) as caught:
        engine.extract(SAID, ALICE, reader=shelf, instructions=f"Mind the {CANARY}", **options)
    error = caught.value
    told = "".join(traceback.format_exception(error)) + repr(error) + error.detail
    chain: BaseException | None = error
    while chain is not None:
        told += str(chain) + repr(vars(chain))
        chain = chain.__cause__ or chain.__context__
    assert CANARY not in told
    return error


def test_a_success_tells_nothing_either(engine: Engine, llm: ScriptedLLM, shelf: Shelf) -> None:
    """Mem0 logs new memories and procedures with their text."""
    llm.facts(f"Likes {CANARY} tea", shelf.memories[0].text).answer(f"Boil {CANARY} tea")
    extraction = engine.extract(SAID, ALICE, reader=shelf)
    procedure = engine.extract(SAID, SubjectNames(agent_id="a"), reader=shelf, procedural=True)
    assert len(extraction.drafts) == 2
    for done in (extraction, procedure):
        assert CANARY in done.drafts[0].text
        assert CANARY not in repr(done)
        assert CANARY not in repr(done.drafts)


@pytest.mark.parametrize("answer", ["", None, " \n ", f"I am sorry, I can say nothing about {CANARY}."])
def test_an_answer_that_is_not_json(engine: Engine, llm: ScriptedLLM, shelf: Shelf, answer: str | None) -> None:
    llm.answer(answer)
    error = failure(engine, shelf)
    assert type(error) is LlmAnswerUnparsable
    assert (error.code, error.transient, error.max_attempts) == ("llm_answer_unparsable", True, 3)


def test_an_answer_that_was_cut_off(engine: Engine, llm: ScriptedLLM, shelf: Shelf) -> None:
    llm.broken_json()
    assert type(failure(engine, shelf)) is LlmAnswerUnparsable


@pytest.mark.parametrize("kind", ODD_SHAPES)
def test_an_answer_of_another_shape(engine: Engine, llm: ScriptedLLM, shelf: Shelf, kind: str) -> None:
    llm.odd_shape(kind)
    error = failure(engine, shelf)
    assert type(error) is LlmAnswerMalformed
    assert (error.code, error.transient, error.max_attempts) == ("llm_answer_malformed", True, 3)


def test_an_answer_without_end(engine: Engine, llm: ScriptedLLM, shelf: Shelf) -> None:
    llm.answer('{"memory": [{"text": "' + CANARY * 200_000 + '"}]}')
    assert type(failure(engine, shelf)) is LlmAnswerMalformed


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"<html>welcome to the proxy</html>", "text/html"),
        (b"{}", "application/json"),
        (b'{"choices": []}', "application/json"),
        (b'{"choices": null}', "application/json"),
        (b"[]", "application/json"),
        (b"{", "application/json"),
    ],
)
def test_an_endpoint_that_is_no_llm(
    engine: Engine, llm: ScriptedLLM, shelf: Shelf, body: bytes, content_type: str
) -> None:
    llm.raw(body, content_type=content_type)
    assert isinstance(failure(engine, shelf), LlmAnswerMalformed)


@pytest.mark.parametrize(
    ("status", "kind", "transient"),
    [
        (400, LlmRejected, False),
        (401, LlmRejected, False),
        (403, LlmRejected, False),
        (404, LlmRejected, False),
        (422, LlmRejected, False),
        (429, LlmRateLimited, True),
        (408, LlmUnavailable, True),
        (500, LlmUnavailable, True),
        (502, LlmUnavailable, True),
        (503, LlmUnavailable, True),
    ],
)
def test_a_status_is_told_by_its_number_only(
    engine: Engine, llm: ScriptedLLM, shelf: Shelf, status: int, kind: type[EngineError], transient: bool
) -> None:
    """The body repeats the prompt. One request: it is the queue that tries again."""
    llm.status(status)
    error = failure(engine, shelf)
    assert type(error) is kind
    assert error.transient is transient
    assert str(status) in error.detail
    assert len(llm.requests) == 1


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), ("0.5", 0.5), ("99999", 3600.0), ("-1", None), ("nan", None), ("soon", None)]
)
def test_a_rate_limit_says_how_long(
    engine: Engine, llm: ScriptedLLM, shelf: Shelf, header: str, seconds: float | None
) -> None:
    llm.status(429, retry_after=header)
    assert failure(engine, shelf).retry_after == seconds


def test_a_refused_connection(engine: Engine, llm: ScriptedLLM, shelf: Shelf) -> None:
    llm.stop()
    error = failure(engine, shelf)
    assert (type(error), error.code, error.transient) == (LlmUnavailable, "llm_unavailable", True)


def test_a_slow_llm_is_given_up_at_the_callers_limit(engine: Engine, llm: ScriptedLLM, shelf: Shelf) -> None:
    engine.extract(SAID, ALICE, reader=shelf)  # load first
    llm.slow(30)
    began = time.monotonic()
    assert type(failure(engine, shelf, wait=0.3)) is LlmUnavailable
    assert time.monotonic() - began < 3


def test_a_slow_llm_is_given_up_at_its_own_limit(build: Callable[..., Engine], llm: ScriptedLLM, shelf: Shelf) -> None:
    engine = build(llm.config, timeout_seconds=0.3)
    engine.extract(SAID, ALICE, reader=shelf)
    llm.slow(30)
    began = time.monotonic()
    assert type(failure(engine, shelf, wait=60)) is LlmUnavailable
    assert time.monotonic() - began < 3


def test_calls_that_hang_do_not_take_more_than_their_slots(
    build: Callable[..., Engine], llm: ScriptedLLM, shelf: Shelf
) -> None:
    engine = build(llm.config, concurrency=1)
    engine.extract(SAID, ALICE, reader=shelf)
    llm.hold()
    assert "did not answer" in failure(engine, shelf, wait=0.3).detail
    assert "busy" in failure(engine, shelf, wait=0.3).detail
    assert len(llm.requests) == 2
    llm.release()
    engine.extract(SAID, ALICE, reader=shelf, wait=10)


class Failing:
    """The built-in embedder until it is told to fail."""

    def __init__(self, real: Embedder) -> None:
        self._real = real
        self.fail_query = self.fail_documents = False
        self.raised: Exception | None = None
        self.spoil: Callable[[Matrix], Any] = lambda vectors: vectors
        self.calls = 0

    @property
    def name(self) -> str:
        return self._real.name

    @property
    def dimensions(self) -> int:
        return self._real.dimensions

    def embed_query(self, text: str) -> Vector:
        if self.fail_query:
            raise self.raised or RuntimeError(f"cannot embed {text}")
        return self._real.embed_query(text)

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        self.calls += 1
        if self.fail_documents:
            raise self.raised or RuntimeError(f"cannot embed {texts}")
        spoilt: Matrix = self.spoil(self._real.embed_documents(texts))
        return spoilt


@pytest.mark.parametrize(("part", "procedural"), [("query", False), ("documents", False), ("documents", True)])
def test_a_failing_embedder_fails_the_call(
    build: Callable[..., Engine], llm: ScriptedLLM, embedder: Embedder, shelf: Shelf, part: str, procedural: bool
) -> None:
    """Mem0 would drop the memories without a word, after embedding each once more by itself."""
    failing = Failing(embedder)
    setattr(failing, f"fail_{part}", True)
    engine = build(llm.config, embedder=failing)
    subjects = SubjectNames(agent_id="a")
    llm.facts("one", "two", "three")
    with pytest.raises(EmbeddingFailed) as caught:
        engine.extract(SAID, subjects, reader=shelf, procedural=procedural)
    assert caught.value.code == "embedding_failed"
    assert CANARY not in str(caught.value)
    assert failing.calls <= 1


@pytest.mark.parametrize(
    "spoil",
    [lambda v: v[:1], lambda v: v[:, :5], lambda v: v * np.nan, lambda v: None, lambda v: [list("ab")] * len(v)],
)
def test_an_embedder_that_returns_something_else_fails_the_call(
    build: Callable[..., Engine], llm: ScriptedLLM, embedder: Embedder, shelf: Shelf, spoil: Callable[[Matrix], Any]
) -> None:
    failing = Failing(embedder)
    failing.spoil = spoil
    llm.facts("one", "two")
    assert type(failure(build(llm.config, embedder=failing), shelf)) is EmbeddingFailed


@pytest.mark.parametrize("method", ["similar", "last_messages"])
def test_a_failing_reader_fails_the_call(engine: Engine, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(f"row {CANARY}")

    shelf = Shelf()
    monkeypatch.setattr(shelf, method, fail)
    error = failure(engine, shelf)
    assert (error.code, error.transient) == ("engine_read_failed", True)


@pytest.mark.parametrize("method", ["similar", "last_messages"])
def test_a_store_that_is_away_is_told_apart_from_a_failure(
    engine: Engine, llm: ScriptedLLM, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise IndexUnavailable("the index does not answer") from RuntimeError(f"query {CANARY}")

    shelf = Shelf()
    monkeypatch.setattr(shelf, method, fail)
    error = failure(engine, shelf)
    assert isinstance(error, StoreAway)
    assert (type(error.away), error.away.detail) == (IndexUnavailable, "the index does not answer")
    assert (error.away.__cause__, error.away.__context__) == (None, None)
    assert (error.asked, len(llm.requests)) == (False, 0)


@pytest.mark.parametrize("part", ["query", "documents"])
def test_an_embedding_provider_that_is_away_is_told_apart_from_one_that_refuses(
    build: Callable[..., Engine], llm: ScriptedLLM, embedder: Embedder, shelf: Shelf, part: str
) -> None:
    failing = Failing(embedder)
    setattr(failing, f"fail_{part}", True)
    engine = build(llm.config, embedder=failing)
    llm.facts("one").facts("one")
    failing.raised = EmbeddingUnavailable("the provider does not answer")
    away = failure(engine, shelf)
    assert isinstance(away, StoreAway)
    assert away.away is failing.raised
    # A fact is embedded once the LLM has named it, which is paid for.
    assert (away.asked, away.usage is not None, len(llm.requests)) == (
        (True, True, 1) if part == "documents" else (False, False, 0)
    )
    failing.raised = EmbeddingRefused("the provider refuses the text")
    assert type(failure(engine, shelf)) is EmbeddingFailed


class Lying:
    """Changes one step of Mem0's pipeline, as another version of it might."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch
        self._memory = import_module("mem0.memory.main").Memory
        self._real = self._memory._add_to_vector_store

    def report(self, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
        real = self._real
        self._patch.setattr(self._memory, "_add_to_vector_store", lambda *a, **k: change(real(*a, **k)))

    def also(self, step: Callable[[Any], object]) -> None:
        real = self._real

        def changed(memory: Any, *args: Any, **kwargs: Any) -> Any:
            reported = real(memory, *args, **kwargs)
            try:
                step(memory)
            except Exception:
                logging.getLogger("mem0").error("swallowed, as Mem0 does")
            return reported

        self._patch.setattr(self._memory, "_add_to_vector_store", changed)


@pytest.fixture
def lying(engine: Engine, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> Lying:
    engine.extract(SAID, ALICE, reader=shelf)
    return Lying(monkeypatch)


@pytest.mark.parametrize(
    "change",
    [
        lambda reported: reported[1:],
        lambda reported: [],
        lambda reported: reported + reported[:1],
        lambda reported: [{**reported[0], "id": "00000000-0000-0000-0000-000000000000"}, *reported[1:]],
        lambda reported: [{**reported[0], "memory": "another"}, *reported[1:]],
        lambda reported: [{**reported[0], "event": "DELETE"}, *reported[1:]],
    ],
)
def test_a_report_that_is_not_what_was_staged_is_not_believed(
    engine: Engine, llm: ScriptedLLM, lying: Lying, shelf: Shelf, change: Any
) -> None:
    lying.report(change)
    llm.facts("one", "two")
    error = failure(engine, shelf)
    assert (type(error), error.code, error.transient) == (StagingMismatch, "staging_mismatch", False)
    assert error.usage is not None


def drop_row(memory: Any) -> None:
    memory._unit.rows.popitem()


def drop_history(memory: Any) -> None:
    memory._unit.history.pop()


def drop_messages(memory: Any) -> None:
    memory._unit.messages.clear()


def change_history(memory: Any) -> None:
    memory._unit.history[0]["event"] = "UPDATE"


def drop_all(memory: Any) -> None:
    memory._unit.rows.clear()
    memory._unit.history.clear()


def add_a_row(memory: Any) -> None:
    payload = {"data": "smuggled", **memory._unit.scope}
    memory.vector_store.insert(vectors=[None], payloads=[payload], ids=["00000000-0000-0000-0000-000000000000"])


@pytest.mark.parametrize("step", [drop_row, drop_history, drop_messages, change_history, drop_all, add_a_row])
def test_what_was_staged_must_add_up(engine: Engine, llm: ScriptedLLM, lying: Lying, shelf: Shelf, step: Any) -> None:
    lying.also(step)
    llm.facts("one", "two")
    assert type(failure(engine, shelf)) is StagingMismatch


@pytest.mark.parametrize(
    "step",
    [
        lambda memory: memory.vector_store.delete("x"),
        lambda memory: memory.vector_store.update("x", payload={}),
        lambda memory: memory.vector_store.list(filters={}),
        lambda memory: memory.vector_store.search("q", [0.0], filters={"user_id": "bob"}),
        lambda memory: memory.vector_store.search("q", [0.0], filters={}),
        lambda memory: memory.vector_store.search("q", [0.0]),
        lambda memory: memory.vector_store.insert([[0.0]], [{"user_id": "bob", "data": "x"}], ["x"]),
        lambda memory: memory.db.get_last_messages("user_id=bob"),
        lambda memory: memory.db.save_messages([], "user_id=bob"),
        lambda memory: memory.db.reset(),
        lambda memory: memory.entity_store,
        lambda memory: memory.reset(),
    ],
)
def test_an_error_that_mem0_swallows_still_fails_the_call(
    engine: Engine, llm: ScriptedLLM, lying: Lying, shelf: Shelf, step: Any
) -> None:
    lying.also(step)
    llm.facts("one")
    assert isinstance(failure(engine, shelf), StagingMismatch)


def test_an_error_of_mem0_itself_fails_the_call(
    engine: Engine, lying: Lying, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> Any:
        raise KeyError(CANARY)

    monkeypatch.setattr("mem0.memory.main.lemmatize_for_bm25", fail)
    error = failure(engine, shelf)
    assert (error.code, error.max_attempts) == ("engine_pipeline_failed", 3)


def test_a_failed_call_does_not_spoil_the_next(engine: Engine, llm: ScriptedLLM, shelf: Shelf) -> None:
    llm.status(500).broken_json().facts("one")
    failure(engine, shelf)
    failure(engine, shelf)
    assert [draft.text for draft in engine.extract(SAID, ALICE, reader=shelf).drafts] == ["one"]


class BotoLike(Exception):
    response: Any = {"ResponseMetadata": {"HTTPStatusCode": 429}}  # noqa: RUF012


class CodeLike(Exception):
    code = 503


class ReadTimeout(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (BotoLike(CANARY), LlmRateLimited),
        (CodeLike(CANARY), LlmUnavailable),
        (ReadTimeout(CANARY), LlmUnavailable),
        (ConnectionRefusedError(CANARY), LlmUnavailable),
        (IndexError(CANARY), LlmAnswerMalformed),
        (RuntimeError(CANARY), LlmUnavailable),
    ],
)
def test_errors_of_other_providers_find_their_class(error: Exception, kind: type[EngineError]) -> None:
    found = failure_of(error, "some")
    assert type(found) is kind
    assert CANARY not in found.detail


def test_no_thread_stays_behind(engine: Engine, shelf: Shelf) -> None:
    engine.extract(SAID, ALICE, reader=shelf)
    deadline = time.monotonic() + 5
    while any(t.name == "llm-call" for t in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not [t for t in threading.enumerate() if t.name == "llm-call"]
