"""Reads and writes memories and their history: sealed on the way in, opened on the way out."""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import date, datetime
from typing import Any, Final, TypeVar, cast
from uuid import UUID

import numpy as np
from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Connection,
    Uuid,
    and_,
    any_,
    bindparam,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError

from service import clock
from service.errors import KeyringUnavailable
from service.records import Change
from service.scope import Scope
from service.storage.encryption import Cipher, Place
from service.storage.joining import Joins
from service.storage.keyring import KeyDestroyed, Keyring
from service.storage.outbox import GONE, enqueue
from service.storage.pipelining import MAY_WAIT
from service.storage.stored import IndexEntry, Slice, StoredHistory, StoredMemory, content_of, identifying, memory_of
from service.storage.tables import HistoryRow, MemoryRow
from service.storage.wording import roughly

memories_table: Final[Any] = MemoryRow.__table__  # type: ignore[attr-defined]
_history: Final[Any] = HistoryRow.__table__  # type: ignore[attr-defined]
_m: Final[Any] = memories_table.c
_log = logging.getLogger("memvault.record")
_Opened = TypeVar("_Opened")
#: Rows that cannot be opened, by id, with the reason.
Unreadable = dict[UUID, KeyringUnavailable]
#: What a read needs; the vector stays behind.
_READ: Final = tuple(
    column for column in memories_table.columns if column.name not in ("vector", "tokens", "identity_mac", "likeness")
)

# Made once: putting it together takes as long as a third of running it.
_FIND: Final = select(*_READ).where(_m.id == any_(bindparam("ids", type_=ARRAY(Uuid))))


class Record:
    """The record of memories. Every method works inside the caller's transaction, which has set the tenant."""

    def __init__(self, keyring: Keyring, joins: Joins) -> None:
        self._keyring = keyring
        self.joins = joins

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
        """Insert memories with their history and outbox rows; return, by the id asked for, the id that holds it now.

        One that is there already (alike in all but its times) is not written again: its id maps to the one that
        exists, which stays until this transaction ends. Of two transactions that insert the same memory at once, one
        waits for the other.
        """
        macs = {memory.id: self.identity(scope, memory) for memory in memories}
        moment = clock.now()
        rows = [
            self._row(scope, memory, vector, own_tokens, embedder, macs[memory.id], moment)
            for memory, vector, own_tokens in zip(memories, vectors, tokens, strict=True)
        ]
        placed = _placed(connection, rows)
        new = [memory for memory in memories if placed[memory.id] == memory.id]
        if new:
            connection.execute(
                insert(_history),
                [self._history_row(scope, memory, Change.ADD, None, memory.text, moment) for memory in new],
                execution_options=MAY_WAIT,
            )
            enqueue(connection, scope, {memory.id: memory.version for memory in new})
            self.joins.written(connection, scope, new)
        return placed

    def known(self, connection: Connection, scope: Scope, memories: Sequence[StoredMemory]) -> dict[UUID, UUID]:
        """Return, by their ids, those that the record has already, with the id under which it does."""
        macs = {self.identity(scope, memory): memory.id for memory in memories}
        rows = connection.execute(select(_m.id, _m.identity_mac).where(_m.identity_mac.in_(list(macs))))
        held = {bytes(row.identity_mac): row.id for row in rows}
        return {memory.id: held[mac] for memory in memories if (mac := self.identity(scope, memory)) in held}

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
        """Write a changed memory as the next version, with its history and outbox rows. `vector` None keeps the old."""
        moment = clock.now()
        after = replace(after, version=before.version + 1, updated_at=moment)
        cipher = self._keyring.subject(scope.tenant_id, after.owner_id)
        mac = self.identity(scope, after)
        values: dict[str, Any] = {
            "version": after.version,
            "content": cipher.seal_json(content_of(after), _place(scope, "memories", after.id, "content")),
            "tokens": list(tokens),
            "identity_mac": mac,
            "likeness": self.likeness(scope, after),
            "updated_at": moment,
            "created_at": after.created_at,
            "expires_on": after.expires_on,
        }
        if vector is not None:
            values["vector"] = _sealed_vector(cipher, scope, after.id, vector)
            values["embedder"] = embedder
        statement = update(memories_table).where(_m.id == after.id)
        try:
            with connection.begin_nested():
                connection.execute(statement.values(**values))
        except IntegrityError:
            # Two memories become the same by an edit: an identical add finds the other one only.
            connection.execute(statement.values(**(values | {"identity_mac": None})))
        connection.execute(
            insert(_history),
            [self._history_row(scope, after, Change.UPDATE, before.text, after.text, before.created_at)],
        )
        enqueue(connection, scope, {after.id: after.version})
        self.joins.written(connection, scope, [after])
        return after

    def delete(
        self, connection: Connection, scope: Scope, memories: Sequence[StoredMemory], *, keep_texts: bool
    ) -> None:
        """Delete memories; their history stays, without texts unless `keep_texts`."""
        if not memories:
            return
        ids = [memory.id for memory in memories]
        connection.execute(delete(memories_table).where(one_of(_m.id, ids)))
        if not keep_texts:
            connection.execute(update(_history).where(one_of(_history.c.memory_id, ids)).values(content=None))
        moment = clock.now()
        connection.execute(
            insert(_history),
            [
                self._history_row(
                    scope, memory, Change.DELETE, memory.text if keep_texts else None, None, memory.created_at, moment
                )
                for memory in memories
            ],
        )
        enqueue(connection, scope, dict.fromkeys(ids, GONE))

    def find(
        self,
        connection: Connection,
        scope: Scope,
        ids: Iterable[UUID],
        *,
        users: frozenset[UUID] | None,
        on: date | None,
        lock: bool = False,
        unreadable: Unreadable | None = None,
    ) -> dict[UUID, StoredMemory]:
        """Return those of the memories that the scope reaches, expired ones left out when a day is given.

        Those that cannot be opened are put into `unreadable`, or where it is not given left out, but for all of them.
        """
        wanted = list(ids)
        if not wanted:
            return {}
        query = _FIND
        if reach := _reach(users, on):
            query = query.where(*reach)
        if lock:
            query = query.order_by(_m.id).with_for_update()
        rows = connection.execute(query, {"ids": wanted})
        found = self._readable(scope, rows) if unreadable is None else self._opened(scope, rows, unreadable)
        return {memory.id: memory for memory in found}

    def page(
        self,
        connection: Connection,
        scope: Scope,
        where: ColumnElement[bool],
        part: Slice,
        *,
        users: frozenset[UUID] | None,
        on: date | None,
    ) -> tuple[list[StoredMemory], int]:
        """Return one slice of the matching memories, the newest first, and how many match in all."""
        matching = and_(where, *_reach(users, on))
        total = connection.execute(select(func.count()).select_from(memories_table).where(matching)).scalar_one()
        query = select(*_READ).where(matching).order_by(_m.created_at.desc(), _m.id.desc())
        rows = connection.execute(query.offset(part.skip).limit(part.size))
        return self._readable(scope, rows), int(total)

    def stream(
        self,
        connection: Connection,
        scope: Scope,
        where: ColumnElement[bool],
        *,
        users: frozenset[UUID] | None,
        on: date | None,
        batch: int = 500,
        unreadable: Unreadable | None = None,
    ) -> Iterator[StoredMemory]:
        """Yield all matching memories, the newest first, in bounded batches of one consistent snapshot.

        Those that cannot be opened are put into `unreadable`. Raises KeyringUnavailable for one where it is not given.
        """
        query = select(*_READ).where(where, *_reach(users, on)).order_by(_m.created_at.desc(), _m.id.desc())
        with connection.execute(query.execution_options(yield_per=batch)) as rows:
            yield from self._opened(scope, rows, unreadable)

    def history(self, connection: Connection, scope: Scope, memory_id: UUID) -> list[StoredHistory]:
        """Return a memory's history, the oldest step first."""
        query = select(_history).where(_history.c.memory_id == memory_id).order_by(_history.c.seq)
        return [self._opened_history(scope, row) for row in connection.execute(query)]

    def counts(
        self, connection: Connection, *, on: date, subject_ids: Sequence[UUID] | None = None
    ) -> dict[UUID, tuple[int, datetime]]:
        """Return for each subject, or for these, the number of its visible memories and the time of the last change."""
        counted: dict[UUID, tuple[int, datetime]] = {}
        for column in (_m.user_id, _m.agent_id, _m.app_id, _m.run_id):
            theirs = column.is_not(None) if subject_ids is None else one_of(column, subject_ids)
            query = (
                select(column, func.count(), func.max(_m.updated_at)).where(theirs, *_reach(None, on)).group_by(column)
            )
            counted.update({row[0]: (row[1], row[2]) for row in connection.execute(query)})
        return counted

    def index_entries(
        self, connection: Connection, scope: Scope, ids: Iterable[UUID], *, unreadable: Unreadable | None = None
    ) -> dict[UUID, IndexEntry]:
        """Return what the index needs of those memories that exist.

        Those that cannot be opened are put into `unreadable`. Raises KeyringUnavailable for them where it is not given.
        """
        query = select(memories_table).where(one_of(_m.id, list(ids)))
        return {entry.memory.id: entry for entry in self._entries(scope, connection.execute(query), unreadable)}

    def next_ids(self, connection: Connection, *, after: UUID | None, limit: int) -> list[UUID]:
        """Return the next ids in their order, for a rebuild."""
        query = select(_m.id).order_by(_m.id).limit(limit)
        return list(connection.execute(query if after is None else query.where(_m.id > after)).scalars())

    def replace_vectors(self, connection: Connection, scope: Scope, entries: Sequence[IndexEntry]) -> None:
        """Write the vectors that another model made of the same texts; a memory that was changed meanwhile stays."""
        for entry in entries:
            memory = entry.memory
            with suppress(KeyDestroyed):
                cipher = self._keyring.subject(scope.tenant_id, memory.owner_id)
                sealed = _sealed_vector(cipher, scope, memory.id, entry.vector)
                statement = update(memories_table).where(_m.id == memory.id, _m.version == memory.version)
                connection.execute(statement.values(vector=sealed, embedder=entry.embedder))

    def count(self, connection: Connection) -> int:
        """Return how many memories the tenant has."""
        return int(connection.execute(select(func.count()).select_from(memories_table)).scalar_one())

    def identity(self, scope: Scope, memory: StoredMemory) -> bytes:
        """Return the keyed digest by which an identical memory is recognised: all that it holds but its times."""
        secret = self._keyring.tenant_secret(scope.tenant_id, "memory-identity")
        return hmac.digest(secret, identifying(memory, memory.text), hashlib.sha256)

    def likeness(self, scope: Scope, memory: StoredMemory) -> int:
        """Return the keyed number by which a memory is looked up that may be worded alike, with all else the same."""
        secret = self._keyring.tenant_secret(scope.tenant_id, "memory-likeness")
        digest = hmac.digest(secret, identifying(memory, roughly(memory.text)), hashlib.sha256)
        return int.from_bytes(digest[:8], "big", signed=True)

    def likely(self, connection: Connection, scope: Scope, likenesses: Iterable[int], *, most: int) -> list[IndexEntry]:
        """Return memories with one of these likenesses, the oldest first. They stay until this transaction ends."""
        wanted = literal(sorted(set(likenesses)), ARRAY(BigInteger))
        query = select(memories_table).where(_m.likeness == any_(wanted)).order_by(_m.ingested_at, _m.id).limit(most)
        rows = connection.execute(query.with_for_update(key_share=True, read=True))
        # What cannot be opened now is alike to nothing: keeping both loses nothing.
        return list(self._entries(scope, rows, {}))

    def _row(
        self,
        scope: Scope,
        memory: StoredMemory,
        vector: np.ndarray,
        tokens: Sequence[int],
        embedder: str,
        mac: bytes,
        moment: datetime,
    ) -> dict[str, Any]:
        cipher = self._keyring.subject(scope.tenant_id, memory.owner_id)
        return {
            "tenant_id": scope.tenant_id,
            "id": memory.id,
            "version": memory.version,
            "owner_id": memory.owner_id,
            "user_id": memory.user_id,
            "agent_id": memory.agent_id,
            "app_id": memory.app_id,
            "run_id": memory.run_id,
            "content": cipher.seal_json(content_of(memory), _place(scope, "memories", memory.id, "content")),
            "vector": _sealed_vector(cipher, scope, memory.id, vector),
            "embedder": embedder,
            "tokens": list(tokens),
            "identity_mac": mac,
            "likeness": self.likeness(scope, memory),
            "created_at": memory.created_at,
            "updated_at": memory.updated_at,
            "ingested_at": moment,
            "expires_on": memory.expires_on,
            "event_id": memory.event_id,
            "principal_id": memory.principal_id,
            "place": memory.place,
        }

    def _history_row(
        self,
        scope: Scope,
        memory: StoredMemory,
        change: Change,
        old_text: str | None,
        new_text: str | None,
        created_at: datetime,
        updated_at: datetime | None = None,
    ) -> dict[str, Any]:
        entry_id = clock.new_id()
        content = None
        if old_text is not None or new_text is not None:
            cipher = self._keyring.subject(scope.tenant_id, memory.owner_id)
            value = {"old": old_text, "new": new_text, "metadata": memory.metadata}
            content = cipher.seal_json(value, _place(scope, "history", entry_id, "content"))
        return {
            "tenant_id": scope.tenant_id,
            "id": entry_id,
            "memory_id": memory.id,
            "owner_id": memory.owner_id,
            "user_id": memory.user_id,
            "agent_id": memory.agent_id,
            "app_id": memory.app_id,
            "run_id": memory.run_id,
            "change": change.value,
            "content": content,
            "created_at": created_at,
            "updated_at": updated_at or memory.updated_at,
        }

    def _readable(self, scope: Scope, rows: Iterable[Any]) -> list[StoredMemory]:
        """Open rows; those that cannot be opened are left out, unless there are no others."""
        unreadable: Unreadable = {}
        opened = list(self._opened(scope, rows, unreadable))
        if unreadable:
            _log.error("stored memories cannot be opened", extra={"memories": len(unreadable)})
            if not opened:
                raise next(iter(unreadable.values()))
        return opened

    def _opened(
        self, scope: Scope, rows: Iterable[Any], unreadable: Unreadable | None = None
    ) -> Iterator[StoredMemory]:
        return _each(rows, lambda row: self._memory(scope, row), unreadable)

    def _entries(self, scope: Scope, rows: Iterable[Any], unreadable: Unreadable | None) -> Iterator[IndexEntry]:
        return _each(rows, lambda row: self._entry(scope, row), unreadable)

    def _memory(self, scope: Scope, row: Any) -> StoredMemory:
        cipher = self._keyring.subject(scope.tenant_id, row.owner_id)
        content = cipher.open_json(row.content, _place(scope, "memories", row.id, "content"))
        return memory_of(row, content)

    def _entry(self, scope: Scope, row: Any) -> IndexEntry:
        memory = self._memory(scope, row)
        cipher = self._keyring.subject(scope.tenant_id, row.owner_id)
        raw = cipher.open(row.vector, _place(scope, "memories", row.id, "vector"))
        return IndexEntry(memory, np.frombuffer(raw, dtype="<f4"), row.embedder, row.tokens)

    def _opened_history(self, scope: Scope, row: Any) -> StoredHistory:
        content: dict[str, Any] = {}
        if row.content is not None:
            try:
                cipher = self._keyring.subject(scope.tenant_id, row.owner_id)
                content = cipher.open_json(row.content, _place(scope, "history", row.id, "content"))
            except KeyDestroyed:
                pass
        metadata = content.get("metadata")
        return StoredHistory(
            id=row.id,
            memory_id=row.memory_id,
            change=Change(row.change),
            # Imports of earlier releases took steps that lack some of it, or whose metadata is no object.
            old_text=content.get("old"),
            new_text=content.get("new"),
            metadata=metadata if isinstance(metadata, dict) else {},
            subject_ids=tuple({row.user_id, row.owner_id} - {None}),
            created_at=row.created_at,
            updated_at=row.updated_at,
        )


def one_of(column: Any, ids: Sequence[UUID]) -> ColumnElement[bool]:
    """Return the condition that a column is one of these ids, as one parameter however many there are."""
    return cast(ColumnElement[bool], column == any_(literal(list(ids), ARRAY(Uuid))))


def _placed(connection: Connection, rows: Sequence[dict[str, Any]]) -> dict[UUID, UUID]:
    """Insert rows, or find the ones that hold the same identity; return by each row's id the id that holds it."""
    placed: dict[UUID, UUID] = {}
    # In the order of their identities, so that two transactions with the same memories never wait for each other.
    left = sorted(rows, key=lambda row: bytes(row["identity_mac"]))
    statement = upsert(memories_table).on_conflict_do_nothing(constraint="memories_identity").returning(_m.id)
    while left:
        made = set(connection.execute(statement, left).scalars())
        placed.update({row["id"]: row["id"] for row in left if row["id"] in made})
        left = [row for row in left if row["id"] not in made]
        if not left:
            break
        # Locked, so that the twin is not deleted before this transaction has told of it.
        twins = connection.execute(
            select(_m.id, _m.identity_mac)
            .where(_m.identity_mac.in_([row["identity_mac"] for row in left]))
            .order_by(_m.identity_mac)
            .with_for_update(key_share=True, read=True)
        )
        by_mac = {bytes(twin.identity_mac): twin.id for twin in twins}
        placed.update({row["id"]: by_mac[row["identity_mac"]] for row in left if row["identity_mac"] in by_mac})
        # A twin that was there a moment ago and is deleted by now: its place is free.
        left = [row for row in left if row["id"] not in placed]
    return placed


def _each(rows: Iterable[Any], open_row: Callable[[Any], _Opened], unreadable: Unreadable | None) -> Iterator[_Opened]:
    """Open rows one by one; those that cannot be opened go into `unreadable`, where it is given."""
    for row in rows:
        try:
            opened = open_row(row)
        except KeyDestroyed:
            # Erased, with the row still to be removed: it is gone already for everybody who asks.
            continue
        except KeyringUnavailable as error:
            if unreadable is None:
                raise
            unreadable[row.id] = error
        else:
            yield opened


def _reach(users: frozenset[UUID] | None, on: date | None) -> list[ColumnElement[bool]]:
    """What the scope adds above any filter: the users that the principal is bound to, and expiry."""
    clauses: list[ColumnElement[bool]] = []
    if users is not None:
        clauses.append(_m.user_id.in_(list(users)))
    if on is not None:
        clauses.append(or_(_m.expires_on.is_(None), _m.expires_on >= on))
    return clauses


def _sealed_vector(cipher: Cipher, scope: Scope, memory_id: UUID, vector: np.ndarray) -> bytes:
    raw = np.asarray(vector, dtype="<f4").tobytes()
    return cipher.seal(raw, _place(scope, "memories", memory_id, "vector"))


def _place(scope: Scope, table: str, row_id: UUID, column: str) -> Place:
    return Place(scope.tenant_id, table, row_id, column)
