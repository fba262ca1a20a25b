"""What stands before an erasure: a legal hold refuses it, a minimum retention puts it off."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, select

from service.errors import LegalHold
from service.holds.guard import (
    belongs_to,
    held_among,
    held_texts,
    refuse_held,
    refuse_held_subject,
    refuse_held_tenant,
)
from service.holds.minimum import Minimum
from service.holds.waiting import WaitingHolds
from service.retention.connectors import ConnectorRows
from service.retention.ledger import ErasureKind, Target
from service.scope import Scope
from service.storage.keyring import lost_of
from service.storage.record import Record, Unreadable, memories_table, one_of
from service.storage.stored import StoredMemory
from service.storage.tombstones import Tombstone, TombstoneKind
from service.tenants.subjects import is_erasing

_m: Final[Any] = memories_table.c
_AT_ONCE: Final = 500


class Obstacles:
    """Asked inside the transaction that begins the erasure."""

    def __init__(
        self, connectors: ConnectorRows, record: Record, minimum: Minimum, waiting_holds: WaitingHolds
    ) -> None:
        self._connectors = connectors
        self._record = record
        self._minimum = minimum
        self._waiting_holds = waiting_holds

    def check(self, connection: Connection, scope: Scope, target: Target, subject_id: UUID | None) -> datetime | None:
        """Return the moment before which a minimum retention keeps something of it, or None.

        What cannot be read any more, since its key is lost, is kept as long as any rule keeps anything.

        Raises:
            KeyringUnavailable: while something of it cannot be read that may be read again.
            LegalHold: when a legal hold covers something of it, or keeps what waits, naming the hold.
        """
        if subject_id is not None:
            refuse_held_subject(connection, scope, subject_id)
            self._waiting_holds.refuse_subject(connection, scope, subject_id)
        elif target.kind is ErasureKind.TENANT:
            refuse_held_tenant(connection, scope)
        else:
            ids = self.memory_ids(connection, scope, target, subject_id)
            deleted = self._connectors.came_through(connection, scope, target.name, held_texts(connection, scope))
            refuse_held(connection, scope, [*ids, *deleted], history=True)
            self._waiting_holds.refuse(connection, scope, self._connectors.waiting(connection, scope, target.name))
        unreadable: Unreadable = {}
        theirs = self._read(connection, scope, self.memory_ids(connection, scope, target, subject_id), unreadable)
        ends = list(self._minimum.keep_until(connection, scope, theirs).values())
        if lost := lost_of(unreadable):
            stored_at = connection.execute(select(_m.ingested_at).where(one_of(_m.id, list(lost)))).scalars().all()
            if (end := self._minimum.keep_unread(connection, scope, stored_at)) is not None:
                ends.append(end)
        return max(ends, default=None)

    def _read(
        self, connection: Connection, scope: Scope, ids: Sequence[UUID], unreadable: Unreadable
    ) -> Iterator[StoredMemory]:
        """Yield memories as they are asked for, so that none is opened where nothing has to be known of it."""
        for start in range(0, len(ids), _AT_ONCE):
            part = ids[start : start + _AT_ONCE]
            yield from self._record.find(connection, scope, part, users=None, on=None, unreadable=unreadable).values()

    def refuse_again(self, connection: Connection, scope: Scope, subject_id: UUID) -> None:
        """Return when nothing of a subject that was erased is held in a database that does not know of that.

        Raises:
            LegalHold: naming the holds.
        """
        refuse_held_subject(connection, scope, subject_id)
        if not is_erasing(connection, subject_id):
            self._waiting_holds.refuse_subject(connection, scope, subject_id)

    def keep(self, connection: Connection, scope: Scope, tombstone: Tombstone) -> bool:
        """Tell whether holds keep all that a database has left of what a tombstone says was erased."""
        if tombstone.kind is TombstoneKind.MEMORIES_ERASED:
            held = held_among(connection, scope, tombstone.ids, history=True)
            left = set(connection.execute(select(_m.id).where(one_of(_m.id, tombstone.ids))).scalars())
            return bool(left) and left <= held.keys()
        try:
            if tombstone.kind is TombstoneKind.TENANT_REMOVED:
                refuse_held_tenant(connection, scope)
            elif tombstone.kind is TombstoneKind.SUBJECT_ERASED:
                for subject_id in tombstone.ids:
                    self.refuse_again(connection, scope, subject_id)
        except LegalHold:
            return True
        return False

    def memory_ids(self, connection: Connection, scope: Scope, target: Target, subject_id: UUID | None) -> list[UUID]:
        """Return the memories that the erasure would remove."""
        if target.kind is ErasureKind.CONNECTOR:
            return self._connectors.ids(connection, scope, target.name)
        query = select(_m.id)
        if subject_id is not None:
            query = query.where(belongs_to(subject_id))
        return list(connection.execute(query).scalars())
