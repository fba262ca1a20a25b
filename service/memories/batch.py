"""Changing or deleting many memories in one call: each item wholly or not at all, and a report on every one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar
from uuid import UUID

from sqlalchemy import Connection

from service.audit.details import BatchUpdated, Reason
from service.audit.events import AuditEvent, Outcome
from service.embeddings.embedder import Embedder, Vector
from service.errors import (
    Conflict,
    InvalidInput,
    MemvaultError,
    MinimumRetention,
    NotFound,
    QuotaExceeded,
    TooLarge,
)
from service.filters.metadata_limits import validate_metadata
from service.filters.tokens import Tokenizer
from service.holds.guard import refusals_among
from service.holds.minimum import Minimum
from service.memories.deleting import delete_memories
from service.memories.edits import Edit, Unset, changed_fields, edited, grows
from service.memories.indexing import Indexing
from service.memories.limits import check_text
from service.memories.provenance import check_connector
from service.memories.stores import Stores
from service.scope import Action, Caller, Scope
from service.storage.keyring import KeyDestroyed
from service.storage.outbox import GONE
from service.storage.stored import IndexEntry, StoredMemory, searchable
from service.storage.superseding import reworded

_T = TypeVar("_T")

#: Items of one call.
MOST_ITEMS: Final = 1000
#: Rows that are read and locked by one statement.
_READ_AT_ONCE: Final = 500
#: Texts that are embedded at once, so that other callers' turns come in between.
_EMBEDDED_AT_ONCE: Final = 64


@dataclass(frozen=True, slots=True)
class BatchEdit:
    """What is to become of one memory. An id that cannot be one is None; `unreadable` is why its edit is not known."""

    memory_id: UUID | None
    edit: Edit
    unreadable: InvalidInput | None = None


#: What became of each item, in the order of the call: None when it was done, else why not.
Report = Sequence[MemvaultError | None]


class Batches:
    """Changes and deletions of many memories at once."""

    def __init__(self, stores: Stores, indexing: Indexing) -> None:
        self._stores = stores
        self._indexing = indexing

    def update(self, caller: Caller, scope: Scope, items: Sequence[BatchEdit]) -> Report:
        """Change memories; what cannot be changed is told in the report and stops no other. One transaction.

        Raises:
            InvalidInput: for no items, or a memory that is named twice.
            TooLarge: for more than 1,000 items.
        """
        stores = self._stores
        stores.gate.check(caller, Action.UPDATE_BATCH, targets=_named(one.memory_id for one in items))
        _check_items([one.memory_id for one in items])
        refused: dict[int, MemvaultError] = {}
        edits: dict[UUID, Edit] = {}
        for number, item in enumerate(items):
            try:
                edits[self._checked(caller, item)] = item.edit
            except MemvaultError as error:
                refused[number] = error
        embedder = stores.embedder
        vectors = self._embedded(scope, edits, embedder)
        try:
            changed, held, entries = self._changed(caller, scope, edits, vectors, embedder.name)
        except QuotaExceeded as error:
            stores.quotas.refused(caller, error)
            raise
        self._indexing.apply(scope, entries)
        return [
            refused.get(number) or _found_held(item.memory_id, held) or _missing(item.memory_id, changed)
            for number, item in enumerate(items)
        ]

    def delete(self, caller: Caller, scope: Scope, memory_ids: Sequence[UUID | None]) -> Report:
        """Delete memories, expired or not, and their texts wherever they are kept. One transaction.

        Raises:
            InvalidInput: for no items, or a memory that is named twice.
            TooLarge: for more than 1,000 items.
        """
        stores = self._stores
        wanted = _named(memory_ids)
        stores.gate.check(caller, Action.DELETE_BATCH, targets=wanted)
        _check_items(memory_ids)
        with stores.database.transaction(scope) as connection:
            found = self._found(connection, scope, wanted, lock=True)
            held = self._held(connection, caller, scope, found, Action.DELETE_BATCH)
            doomed = list(found.values())
            keep_texts = stores.settings.history.keep_deleted
            delete_memories(connection, scope, stores.record, doomed, keep_texts=keep_texts)
            missing = [one for one in wanted if one not in found and one not in held]
            if doomed:
                stores.trail.write(
                    connection,
                    caller,
                    AuditEvent.BATCH_DELETED,
                    subjects=dict.fromkeys(subject for memory in doomed for subject in memory.subject_ids()),
                    targets=[memory.id for memory in doomed],
                )
            if missing or not (doomed or held):
                stores.trail.write(
                    connection, caller, AuditEvent.BATCH_DELETED, targets=missing, outcome=Outcome.NOT_FOUND
                )
        self._indexing.apply(scope, [], gone=dict.fromkeys(found, GONE))
        return [_found_held(one, held) or _missing(one, found) for one in memory_ids]

    def _checked(self, caller: Caller, item: BatchEdit) -> UUID:
        """Return the id of an item that may be tried."""
        if item.unreadable is not None:
            raise item.unreadable
        if item.edit == Edit():
            raise InvalidInput("nothing to change: give text, metadata, timestamp or expiration_date")
        if not isinstance(item.edit.text, Unset):
            check_text(item.edit.text, self._stores.settings.limits, "text")
        if not isinstance(item.edit.metadata, Unset):
            validate_metadata(item.edit.metadata)
            check_connector(self._stores, caller, Action.UPDATE_BATCH, item.edit.metadata)
        if item.memory_id is None:
            raise _no_such()
        return item.memory_id

    def _embedded(self, scope: Scope, edits: Mapping[UUID, Edit], embedder: Embedder) -> dict[UUID, Vector]:
        """Return the vectors of the new texts, of those memories only that the scope reaches. No transaction is open.

        Who said a memory is part of what is embedded, and never changes.
        """
        texts = {memory_id: edit.text for memory_id, edit in edits.items() if not isinstance(edit.text, Unset)}
        with self._stores.database.transaction(scope) as connection:
            found = self._found(connection, scope, list(texts))
        wanted = [(memory_id, searchable(texts[memory_id], memory.actor)) for memory_id, memory in found.items()]
        vectors: dict[UUID, Vector] = {}
        for part in _parts(wanted, _EMBEDDED_AT_ONCE):
            made = embedder.embed_documents([text for _, text in part])
            vectors.update((memory_id, vector) for (memory_id, _), vector in zip(part, made, strict=True))
        return vectors

    def _changed(
        self, caller: Caller, scope: Scope, edits: Mapping[UUID, Edit], vectors: Mapping[UUID, Vector], embedder: str
    ) -> tuple[set[UUID], Mapping[UUID, Conflict], Sequence[IndexEntry]]:
        """Write the changes, each with its audit row; return what was changed, what is held, what the index needs."""
        stores = self._stores
        changed: dict[UUID, StoredMemory] = {}
        with stores.database.transaction(scope) as connection, stores.record.together(connection, scope):
            found = self._found(connection, scope, list(edits), lock=True)
            held = dict(self._held(connection, caller, scope, found, Action.UPDATE_BATCH))
            tokenizer = stores.tokenizer(scope)
            for memory_id, before in found.items():
                edit, vector = edits[memory_id], vectors.get(memory_id)
                if not isinstance(edit.text, Unset) and vector is None:
                    # It came after the texts were embedded.
                    continue
                try:
                    after = self._change(connection, caller, scope, before, edit, vector, tokenizer, embedder=embedder)
                except MinimumRetention as error:
                    held[memory_id] = error
                    stores.trail.refused(connection, caller, Action.UPDATE_BATCH, Reason.MINIMUM, targets=[memory_id])
                    continue
                if after is not None:
                    changed[memory_id] = after
            reworded(connection, [one for one, after in changed.items() if after.text != found[one].text])
            if any(grows(found[one], after) for one, after in changed.items()):
                stores.quotas.check_room(connection, scope)
            missing = [one for one in edits if one not in changed and one not in held]
            if missing or not (changed or held):
                stores.trail.write(
                    connection, caller, AuditEvent.BATCH_UPDATED, targets=missing, outcome=Outcome.NOT_FOUND
                )
            entries = stores.record.index_entries(connection, scope, changed)
        return set(changed), held, list(entries.values())

    def _change(
        self,
        connection: Connection,
        caller: Caller,
        scope: Scope,
        before: StoredMemory,
        edit: Edit,
        vector: Vector | None,
        tokenizer: Tokenizer,
        *,
        embedder: str,
    ) -> StoredMemory | None:
        """Write one change with its audit row; return the memory as it is now, or None where it has been erased.

        Raises:
            MinimumRetention: when it would end before a rule lets it.
        """
        stores = self._stores
        after = edited(before, edit, connector=caller.principal.connector)
        Minimum(stores.keyring).refuse_shortened(connection, scope, before, after)
        tokens = tokenizer.row_tokens(after.metadata, after.categories, after.actor)
        try:
            after = stores.record.update(connection, scope, before, after, vector, tokens, embedder=embedder)
        except KeyDestroyed:
            # Erased between reading and writing: nothing was written, and there is nothing any more.
            return None
        # A row for each: their texts are fingerprinted under the keys of different people.
        stores.trail.write(
            connection,
            caller,
            AuditEvent.BATCH_UPDATED,
            subjects=after.subject_ids(),
            targets=[after.id],
            texts=[] if isinstance(edit.text, Unset) else [after.text],
            detail=BatchUpdated(
                changed=changed_fields(edit),
                version=after.version,
                expires_on=None if isinstance(edit.expires_on, Unset) else edit.expires_on,
            ),
        )
        return after

    def _held(
        self,
        connection: Connection,
        caller: Caller,
        scope: Scope,
        found: dict[UUID, StoredMemory],
        action: Action,
    ) -> Mapping[UUID, Conflict]:
        """Take what a hold or a minimum keeps out of what was found, tell the trail, and return what refuses each."""
        trail, by_hold = self._stores.trail, refusals_among(connection, scope, found)
        for memory_id in by_hold:
            del found[memory_id]
        if by_hold:
            holds = dict.fromkeys(hold_id for refusal in by_hold.values() for hold_id in refusal.hold_ids)
            trail.refused(connection, caller, action, Reason.HOLD, targets=by_hold, holds=list(holds))
        if action is not Action.DELETE_BATCH:
            return by_hold
        kept = Minimum(self._stores.keyring).keep_until(connection, scope, list(found.values()))
        for memory_id in kept:
            del found[memory_id]
        if kept:
            trail.refused(connection, caller, action, Reason.MINIMUM, targets=kept)
        return {**by_hold, **{one: MinimumRetention(until, memory_ids=[one]) for one, until in kept.items()}}

    def _found(
        self, connection: Connection, scope: Scope, ids: Sequence[UUID], *, lock: bool = False
    ) -> dict[UUID, StoredMemory]:
        """Return the memories that the scope reaches, in the order of their ids, so that two batches never cross."""
        users = self._stores.bound_users(connection, scope)
        found: dict[UUID, StoredMemory] = {}
        for part in _parts(sorted(ids), _READ_AT_ONCE):
            found |= self._stores.record.find(connection, scope, part, users=users, on=None, lock=lock)
        return found


def _found_held(memory_id: UUID | None, held: Mapping[UUID, Conflict]) -> Conflict | None:
    return None if memory_id is None else held.get(memory_id)


def _check_items(memory_ids: Sequence[UUID | None]) -> None:
    if not memory_ids:
        raise InvalidInput("memories: must not be empty")
    if len(memory_ids) > MOST_ITEMS:
        raise TooLarge(f"memories: more than {MOST_ITEMS} in one batch; send them in several")
    seen: set[UUID] = set()
    for number, memory_id in enumerate(memory_ids):
        if memory_id is not None and memory_id in seen:
            raise InvalidInput(f"memories[{number}].memory_id: stands twice in the batch; nothing was done")
        if memory_id is not None:
            seen.add(memory_id)


def _named(memory_ids: Iterable[UUID | None]) -> list[UUID]:
    return [one for one in memory_ids if one is not None]


def _missing(memory_id: UUID | None, done: Iterable[UUID]) -> MemvaultError | None:
    return None if memory_id is not None and memory_id in done else _no_such()


def _no_such() -> NotFound:
    return NotFound("there is no such memory")


def _parts(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
