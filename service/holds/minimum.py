"""Minimum retention: until when rules keep a memory from every deletion, counted from when it was stored here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection

from service import clock
from service.errors import MinimumRetention
from service.holds.rules import Rule, Rules
from service.scope import Scope
from service.storage.kept_filters import meets
from service.storage.keyring import Keyring
from service.storage.stored import StoredMemory


def kept_until(rules: Sequence[Rule], memory: StoredMemory) -> datetime | None:
    """Return the latest moment before which one of the rules keeps a memory, or None. Pure.

    It counts from when the memory was stored here, which no import and no caller can backdate.
    """
    ends = [
        rule.body.minimum.after(memory.ingested_at)
        for rule in rules
        if rule.body.minimum is not None and memory.ingested_at is not None and meets(rule.body.where, memory)
    ]
    return max(ends, default=None)


class Minimum:
    """The check of minimum retention, inside the transaction that deletes."""

    def __init__(self, keyring: Keyring) -> None:
        self._rules = Rules(keyring)

    def keep_until(
        self, connection: Connection, scope: Scope, memories: Iterable[StoredMemory]
    ) -> dict[UUID, datetime]:
        """Return until when each of the memories is kept, those left out that may be deleted now.

        Where no rule has a minimum the memories are not asked for, so that none of a stream is read.
        """
        if not self._rules.has_minimum(connection, scope):
            return {}
        rules, moment = self._rules.current(connection, scope), clock.now()
        ends = {memory.id: kept_until(rules, memory) for memory in memories}
        return {memory_id: end for memory_id, end in ends.items() if end is not None and end > moment}

    def keep_unread(self, connection: Connection, scope: Scope, stored_at: Iterable[datetime]) -> datetime | None:
        """Return until when what cannot be read may have to be kept: as if every rule were for it. None: until now."""
        rules, moment = self._rules.current(connection, scope), clock.now()
        minimums = [rule.body.minimum for rule in rules if rule.body.minimum is not None]
        ends = [minimum.after(at) for at in stored_at for minimum in minimums]
        return max((end for end in ends if end > moment), default=None)

    def refuse_kept(self, connection: Connection, scope: Scope, memories: Iterable[StoredMemory]) -> None:
        """Return when all of the memories may be deleted.

        Raises:
            MinimumRetention: with the moment from which on all of them may.
        """
        kept = self.keep_until(connection, scope, memories)
        if kept:
            raise MinimumRetention(max(kept.values()), memory_ids=sorted(kept))

    def refuse_shortened(self, connection: Connection, scope: Scope, before: StoredMemory, after: StoredMemory) -> None:
        """Return when a change leaves a memory kept as long as it was: else the change would be the way around it.

        Raises:
            MinimumRetention: otherwise.
        """
        until = self.keep_until(connection, scope, [before]).get(before.id)
        if until is not None and until > self.keep_until(connection, scope, [after]).get(after.id, clock.now()):
            raise MinimumRetention(until, memory_ids=[before.id])
