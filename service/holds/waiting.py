"""Keeps what waits for a reviewer from being removed, where a hold would cover it once it was approved."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import Connection

from service.errors import LegalHold
from service.holds.guard import belongs_to
from service.holds.membership import Membership
from service.scope import Scope
from service.storage.quarantine import Quarantine, quarantine_table
from service.storage.stored import StoredMemory


class WaitingHolds:
    """What the guard is for the record: the way by which what waits is removed, unless its subject's erasure has begun.

    What waits is in no hold yet, since a hold's members are memories of the record. It is kept by those that it would
    join when it is approved, so that its removal is refused just where its deletion afterwards would be.
    """

    def __init__(self, quarantine: Quarantine, membership: Membership) -> None:
        self._quarantine = quarantine
        self._membership = membership

    def remove(self, connection: Connection, scope: Scope, ids: Collection[UUID]) -> None:
        """Remove all of what waits under these ids, or nothing.

        Raises:
            LegalHold: when a live hold keeps any of it, naming the holds.
        """
        self.refuse(connection, scope, ids)
        self._quarantine.remove(connection, ids)

    def remove_free(self, connection: Connection, scope: Scope, ids: Collection[UUID]) -> set[UUID]:
        """Remove those that no live hold keeps, and return which."""
        free = set(ids) - self._kept(connection, scope, ids).keys()
        self._quarantine.remove(connection, free)
        return free

    def _kept(self, connection: Connection, scope: Scope, ids: Collection[UUID]) -> dict[UUID, LegalHold]:
        if not ids:
            return {}

        def opened() -> list[StoredMemory]:
            found = self._quarantine.find(connection, scope, list(ids), users=None, on=None)
            return [one.memory for one in found.values()]

        return self._membership.refusals(connection, scope, opened)

    def refuse(self, connection: Connection, scope: Scope, ids: Collection[UUID]) -> None:
        """Return when no live hold keeps any of what waits under these ids.

        Raises:
            LegalHold: naming the holds.
        """
        refusals = self._kept(connection, scope, ids).values()
        if refusals:
            named = {name: id_ for one in refusals for name, id_ in zip(one.names, one.hold_ids, strict=True)}
            raise LegalHold(sorted(named), hold_ids=[named[name] for name in sorted(named)])

    def refuse_subject(self, connection: Connection, scope: Scope, subject_id: UUID) -> None:
        """The same for all that waits for a user, agent, app or run."""
        theirs = self._quarantine.ids(connection, belongs_to(subject_id, quarantine_table), users=None)
        self.refuse(connection, scope, theirs)
