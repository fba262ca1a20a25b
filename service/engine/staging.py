"""The stores that Mem0 sees during one call: they read through the reader, keep what it writes, and write nothing."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar, cast
from uuid import UUID

import numpy as np

from service.clock import new_random_id
from service.embeddings import Embedder, EmbeddingRefused, Vector
from service.engine.answers import Answer
from service.engine.errors import EmbeddingFailed, EngineError, NotSupported, ReadFailed, StagingMismatch, StoreAway
from service.engine.prompt import as_said
from service.engine.shapes import Reader, Recalled, TokenUsage
from service.errors import Unavailable
from service.records import SubjectNames

Call = TypeVar("Call", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Row:
    """A row in the shape in which Mem0 expects a vector store to answer."""

    id: str
    payload: dict[str, Any] = field(repr=False)
    score: float = 1.0
    vector: Vector | None = field(default=None, repr=False)


class UnitOfWork:
    """What one call reads and stages. Mem0 swallows its stores' errors, so each is recorded here and raised afterwards.

    Mem0 gets a random word in place of each subject's name: the reader is bound to its scope already, names with blanks
    would be refused, and no name can reach one of Mem0's logs.
    """

    def __init__(self, subjects: SubjectNames, reader: Reader) -> None:
        self.reader = reader
        self.word = f"unit-{new_random_id().hex}"
        self.scope = {f"{kind}_id": self.word for kind in _known_to_mem0(subjects)}
        self.failure: EngineError | None = None
        self.recalled: tuple[Recalled, ...] = ()
        self.rows: dict[str, Row] = {}
        self.history: list[dict[str, Any]] = []
        self.messages: list[Mapping[str, Any]] = []
        self.answer: Answer | None = None
        self.procedure: str | None = None
        self.asked = False
        self.usage: TokenUsage | None = None

    def fail(self, failure: EngineError) -> None:
        """Record a failure; the first one counts, later ones follow from it."""
        self.failure = self.failure or failure

    def raise_failure(self) -> None:
        """Raise the recorded failure, if there is one. To be called outside of any handler: see `errors`."""
        if self.failure is not None:
            raise self.told(self.failure)

    def told(self, failure: EngineError) -> EngineError:
        """Return a failure that tells what the call has asked of the LLM."""
        failure.asked, failure.usage = self.asked, self.usage
        return failure

    def check_filters(self, filters: Mapping[str, Any] | None) -> None:
        """Raise unless Mem0 asks for exactly the subjects of this call."""
        if dict(filters or {}) != self.scope:
            raise StagingMismatch("Mem0 asked a store for another scope than that of the call")

    def check_session(self, session: str) -> None:
        """Raise unless the key of Mem0's message buffer is made of the subjects of this call."""
        if session != "&".join(f"{key}={value}" for key, value in sorted(self.scope.items())):
            raise StagingMismatch("Mem0 asked for the messages of another scope than that of the call")


def recorded(call: Call) -> Call:
    """Record in the unit of work (`_unit`) whatever the adapter's method raises, before Mem0 swallows it.

    An error of the engine keeps its class, and one of a store that is away stays inside of ours; of any other only the
    class name is kept, for its text may hold content.
    """

    @functools.wraps(call)
    def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
        failure: EngineError
        try:
            return call(self, *args, **kwargs)
        except EngineError as error:
            failure = error
        except Unavailable as error:
            failure = StoreAway(error)
        except Exception as error:
            failure = ReadFailed(f"{call.__name__} failed during the extraction ({type(error).__name__})")
        unit: UnitOfWork = self._unit
        unit.fail(failure)
        raise failure

    return cast(Call, watched)


class StagingEmbedder:
    """The service's embedder in Mem0's interface. A failure ends the call; Mem0 alone would drop the memory."""

    def __init__(self, unit: UnitOfWork, embedder: Embedder) -> None:
        self._unit = unit
        self._embedder = embedder

    @recorded
    def embed(self, text: str, memory_action: str | None = None) -> Vector:
        """Return the vector of a text: of a question for `search`, else of a text to be stored."""
        self._unit.raise_failure()
        if memory_action == "search":
            return self._vectors(lambda: [self._embedder.embed_query(text)], 1)[0]
        return self._vectors(lambda: self._embedder.embed_documents([text]), 1)[0]

    @recorded
    def embed_batch(self, texts: Sequence[str], memory_action: str = "add") -> list[Vector]:
        """Return the vectors of texts in their order."""
        self._unit.raise_failure()
        return self._vectors(lambda: self._embedder.embed_documents(list(texts)), len(texts))

    def _vectors(self, call: Callable[[], Any], expected: int) -> list[Vector]:
        kind = None
        try:
            vectors = [np.asarray(vector, dtype=np.float32) for vector in call()]
        except Exception as error:
            if isinstance(error, Unavailable) and not isinstance(error, EmbeddingRefused):
                raise
            kind = type(error).__name__
        if kind:
            raise EmbeddingFailed(f"the embedder failed ({kind})")
        shape = (self._embedder.dimensions,)
        if len(vectors) != expected or any(v.shape != shape or not np.isfinite(v).all() for v in vectors):
            raise EmbeddingFailed(f"the embedder did not return {expected} vectors of {shape[0]} numbers")
        return vectors


class StagingVectorStore:
    """A vector store in Mem0's interface: searches what exists and what is staged, stages inserts, refuses the rest."""

    def __init__(self, unit: UnitOfWork) -> None:
        self._unit = unit

    @recorded
    def search(
        self, query: str, vectors: Vector, top_k: int = 5, filters: Mapping[str, Any] | None = None
    ) -> list[Row]:
        """Return the memories that are like the text, staged ones included, best first."""
        self._unit.check_filters(filters)
        recalled = tuple(self._unit.reader.similar(query, top_k, vector=vectors))[:top_k]
        self._unit.recalled = recalled
        found = [Row(str(memory.id), _payload(memory.text), memory.score) for memory in recalled]
        staged = [
            Row(row.id, row.payload, float(np.dot(vectors, row.vector)), row.vector)
            for row in self._unit.rows.values()
            if row.vector is not None
        ]
        return sorted(found + staged, key=lambda row: -row.score)[:top_k] if staged else found

    @recorded
    def insert(
        self,
        vectors: Sequence[Vector],
        payloads: Sequence[dict[str, Any]] | None = None,
        ids: Sequence[str] | None = None,
    ) -> None:
        """Stage rows."""
        for vector, payload, row_id in zip(vectors, payloads or (), ids or (), strict=True):
            if row_id in self._unit.rows or any(payload.get(key) != value for key, value in self._unit.scope.items()):
                raise StagingMismatch("Mem0 inserted a row twice or into another scope than that of the call")
            self._unit.rows[row_id] = Row(row_id, payload, vector=vector)

    @recorded
    def get(self, vector_id: str) -> Row | None:
        """Return a row that this call staged or was shown; there are no others here."""
        if vector_id in self._unit.rows:
            return self._unit.rows[vector_id]
        shown = {str(memory.id): memory for memory in self._unit.recalled}
        return Row(vector_id, _payload(shown[vector_id].text)) if vector_id in shown else None

    def keyword_search(self, query: str, top_k: int = 5, filters: Mapping[str, Any] | None = None) -> None:
        """Answer None, Mem0's word for "this store has no keyword search": the service's own search has one."""

    @recorded
    def list(self, filters: Mapping[str, Any] | None = None, top_k: int | None = None) -> NoReturn:
        """Refuse: a part of the rows would pass for all of them."""
        _refuse("list")

    @recorded
    def update(self, vector_id: str, vector: Any = None, payload: Any = None) -> NoReturn:
        """Refuse: an extraction only adds."""
        _refuse("update")

    @recorded
    def delete(self, vector_id: str) -> NoReturn:
        """Refuse: an extraction only adds."""
        _refuse("delete")

    @recorded
    def search_batch(self, queries: Any, vectors_list: Any, top_k: int = 1, filters: Any = None) -> NoReturn:
        """Refuse: only Mem0's entities use it, and they are off."""
        _refuse("search_batch")

    @recorded
    def create_col(self, name: Any = None, vector_size: Any = None, distance: Any = None) -> NoReturn:
        """Refuse: there are no collections here."""
        _refuse("create_col")

    @recorded
    def list_cols(self) -> NoReturn:
        """Refuse: there are no collections here."""
        _refuse("list_cols")

    @recorded
    def delete_col(self) -> NoReturn:
        """Refuse: there are no collections here."""
        _refuse("delete_col")

    @recorded
    def col_info(self) -> NoReturn:
        """Refuse: there are no collections here."""
        _refuse("col_info")

    @recorded
    def reset(self) -> NoReturn:
        """Refuse: nothing is dropped through Mem0."""
        _refuse("reset")


class StagingHistory:
    """Mem0's history database in its interface: reads the last messages, stages history and messages."""

    def __init__(self, unit: UnitOfWork) -> None:
        self._unit = unit

    @recorded
    def get_last_messages(self, session_scope: str, limit: int = 10) -> list[dict[str, Any]]:
        """Return the last messages of this scope as data for the prompt, oldest first."""
        self._unit.check_session(session_scope)
        last = self._unit.reader.last_messages(limit)[-limit:]
        return [{"role": message.role, "content": as_said(message), "name": None} for message in last]

    @recorded
    def save_messages(self, messages: Sequence[Mapping[str, Any]], session_scope: str) -> None:
        """Stage the messages of this call."""
        self._unit.check_session(session_scope)
        self._unit.messages.extend(messages)

    @recorded
    def batch_add_history(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Stage several history entries."""
        self._unit.history.extend(dict(record) for record in records)

    @recorded
    def add_history(
        self, memory_id: str, old_memory: str | None, new_memory: str | None, event: str, **details: Any
    ) -> None:
        """Stage one history entry."""
        entry = {"memory_id": memory_id, "old_memory": old_memory, "new_memory": new_memory, "event": event}
        self._unit.history.append(entry | details)

    @recorded
    def get_history(self, memory_id: str) -> list[dict[str, Any]]:
        """Return the staged entries of a memory."""
        return [dict(entry) for entry in self._unit.history if entry["memory_id"] == memory_id]

    @recorded
    def reset(self) -> NoReturn:
        """Refuse: nothing is dropped through Mem0."""
        _refuse("reset")

    def close(self) -> None:
        """Do nothing: there is nothing open."""


def _refuse(call: str) -> NoReturn:
    raise NotSupported(f"Mem0 called {call} on a staged store, which an extraction never needs; nothing was changed")


def _payload(text: str) -> dict[str, Any]:
    """Return the payload of an existing memory: its text, without the hash by which Mem0 drops what is worded the same.

    It would drop a fact because of a memory of another run, day of expiry or metadata, and what the fact supersedes
    with it. What is there already the record tells.
    """
    return {"data": text}


def _known_to_mem0(subjects: SubjectNames) -> list[str]:
    """Return the kinds of the subjects as Mem0 knows them: it has no apps, an app alone stands as a run."""
    kinds = [kind.value for kind, _ in subjects.items() if kind.value != "app"]
    return kinds or ["run"]


def reader_ids(rows: Sequence[Recalled], positions: Sequence[int]) -> tuple[UUID, ...]:
    """Return the ids of the memories at the positions that the prompt showed them at; unknown positions are ignored."""
    return tuple(rows[position].id for position in positions if position < len(rows))
