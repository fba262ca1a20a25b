"""A record that tells of every change of memories, inside the transaction of the change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol
from uuid import UUID

import numpy as np
from sqlalchemy import Connection

from service.records import Change
from service.scope import Scope
from service.storage.joining import Joins
from service.storage.keyring import Keyring
from service.storage.record import Record
from service.storage.stored import StoredMemory


class Announcer(Protocol):
    """Who is told of changes."""

    def announce(
        self,
        connection: Connection,
        scope: Scope,
        change: Change,
        memory_ids: Sequence[UUID],
        subject_ids: Iterable[UUID] = (),
    ) -> None:
        """Take note that these memories changed, which belong to these subjects."""


class Nobody:
    """Nobody wants to be told."""

    def announce(self, *told: Any, **more: Any) -> None:
        """Do nothing."""


class AnnouncedRecord(Record):
    """The record, with somebody who is told of what is added, changed and deleted in it."""

    def __init__(self, keyring: Keyring, joins: Joins, announcer: Announcer) -> None:
        super().__init__(keyring, joins)
        self._announcer = announcer
        #: What is not told yet, by the connection on which it is changed.
        self._untold: dict[Connection, list[StoredMemory]] = {}

    def insert(
        self,
        connection: Connection,
        scope: Scope,
        memories: Sequence[StoredMemory],
        vectors: Sequence[np.ndarray],
        tokens: Sequence[Sequence[int]],
        *,
        embedder: str,
    ) -> dict[UUID, UUID]:
        """Insert memories, and tell of those that are new."""
        placed = super().insert(connection, scope, memories, vectors, tokens, embedder=embedder)
        self._tell(connection, scope, Change.ADD, [one for one in memories if placed[one.id] == one.id])
        return placed

    def update(
        self,
        connection: Connection,
        scope: Scope,
        before: StoredMemory,
        after: StoredMemory,
        vector: np.ndarray | None,
        tokens: Sequence[int],
        *,
        embedder: str,
    ) -> StoredMemory:
        """Write a changed memory, and tell of it."""
        written = super().update(connection, scope, before, after, vector, tokens, embedder=embedder)
        if (untold := self._untold.get(connection)) is not None:
            untold.append(written)
        else:
            self._tell(connection, scope, Change.UPDATE, [written])
        return written

    @contextmanager
    def together(self, connection: Connection, scope: Scope) -> Iterator[None]:
        """Tell of all that is updated in the block as of one change."""
        untold = self._untold[connection] = []
        try:
            yield
        finally:
            del self._untold[connection]
        self._tell(connection, scope, Change.UPDATE, untold)

    def delete(
        self, connection: Connection, scope: Scope, memories: Sequence[StoredMemory], *, keep_texts: bool
    ) -> None:
        """Delete memories, and tell of it."""
        super().delete(connection, scope, memories, keep_texts=keep_texts)
        self._tell(connection, scope, Change.DELETE, memories)

    def _tell(self, connection: Connection, scope: Scope, change: Change, memories: Sequence[StoredMemory]) -> None:
        subjects = {subject for memory in memories for subject in memory.subject_ids()}
        self._announcer.announce(connection, scope, change, [memory.id for memory in memories], subjects)
