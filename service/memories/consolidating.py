"""Consolidation: proposes that a newer memory stand for older ones that say the same or are no longer so, and links.

Nothing is deleted or changed: an older memory is superseded by a link, and a proposal hides nothing.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import Connection

from service.audit.details import MemoriesConsolidated
from service.audit.events import AuditEvent
from service.audit.trail import Trail
from service.holds.guard import held_among
from service.memories.changed_facts import ChangedFacts
from service.scope import Caller, Scope, TenantId, installation_caller
from service.storage.alike import Seen, Worded, fill_likenesses, newest_first, repeated, says_the_same
from service.storage.database import Database
from service.storage.record import Record
from service.storage.stored import IndexEntry
from service.storage.superseding import KINDS, Link, dismiss, proposals, propose, supersede

#: The periodic task that goes round the tenants.
CONSOLIDATE: Final = "consolidate"
#: Likenesses that are looked up at once, and memories of them that are looked at in one transaction.
_AT_ONCE: Final = 200
_MOST: Final = 2_000
_log: Final = logging.getLogger("memvault.consolidation")


class Consolidations:
    """Looks for what newer memories make needless or untrue, and keeps what is proposed and decided about it."""

    def __init__(self, database: Database, record: Record, trail: Trail, *, similarity: float | None) -> None:
        self._database = database
        self._record = record
        self._trail = trail
        self._similarity = similarity

    def run(
        self, caller: Caller, scope: Scope, *, dry: bool = False, changed: ChangedFacts | None = None
    ) -> Sequence[Link]:
        """Look through the tenant's memories; return what is proposed now, what was before included.

        Only what an add would not have stored is alike: near-duplicates of before, of imports, and of two adds at the
        same instant. What a hold covers is left alone, and what was dismissed is not proposed again. With `changed`
        the language model is asked too, which older ones are no longer so. A dry run proposes and asks nothing.
        """
        return self._run(caller, scope, dry=dry, changed=changed)[0]

    def _run(
        self, caller: Caller, scope: Scope, *, dry: bool, changed: ChangedFacts | None
    ) -> tuple[Sequence[Link], bool]:
        """Return what is proposed now, and whether the language model was away."""
        self._fill(scope)
        found = list(self.proposed(scope))
        after: int | None = None
        while True:
            with self._database.transaction(scope) as connection:
                likenesses = repeated(connection, after=after, limit=_AT_ONCE)
            found += self._propose(caller, scope, likenesses, dry=dry)
            if len(likenesses) < _AT_ONCE:
                break
            after = likenesses[-1]
        away = False
        if changed is not None and not dry:
            looked = changed.look(caller, scope)
            found += looked.links
            away = looked.away
        with self._database.transaction(scope) as connection:
            # Also when nothing was found, or only looked for: memories were read.
            self._tell(connection, caller, found, MemoriesConsolidated(listed=len(found)))
        return found, away

    def proposed(self, scope: Scope) -> Sequence[Link]:
        """Return what is proposed and not decided on."""
        with self._database.transaction(scope) as connection:
            return proposals(connection)

    def decide(self, caller: Caller, scope: Scope, older_ids: Sequence[UUID] | None, *, accept: bool) -> Sequence[Link]:
        """Link what is proposed of these older memories, or of all, or dismiss it for good; return what was decided.

        What a hold covers by now is passed over and stays proposed. Where the older one superseded the newer one
        meanwhile, since it was said again, accepting would hide both: that is dismissed.
        """
        with self._database.transaction(scope) as connection:
            wanted = proposals(connection, older_ids, lock=True)
            held = held_among(connection, scope, [one.older_id for one in wanted])
            decided = free = [one for one in wanted if one.older_id not in held]
            if accept:
                decided = self._linked(connection, scope, free)
            dropped = [one for one in free if not accept or one not in decided]
            dismiss(connection, dropped)
            if wanted:
                count = {"accepted" if accept else "dismissed": len(decided)}
                self._tell(connection, caller, decided, MemoriesConsolidated(**count, held=len(wanted) - len(free)))
            if accept and dropped:
                # A row of its own, so that the trail names which ones were not linked.
                self._tell(connection, caller, dropped, MemoriesConsolidated(dismissed=len(dropped)))
        return decided

    def periodic(
        self,
        look: str | None,
        tenant_ids: Callable[[], Sequence[TenantId]],
        *,
        changed: ChangedFacts | None = None,
    ) -> Mapping[str, tuple[str, Callable[[int], None]]]:
        """Return the periodic work by task name, with when it runs, as cron says it; nothing when it never does."""

        def work(timestamp: int) -> None:
            away = False
            for tenant_id in tenant_ids():
                caller = installation_caller(tenant_id)
                try:
                    # A model that is away is not waited for once more for each tenant.
                    away |= self._run(caller, caller.scope, dry=False, changed=None if away else changed)[1]
                except Exception as error:
                    # One that fails keeps no other from its own.
                    _log.error("a consolidation failed", extra={"error": type(error).__name__}, exc_info=error)

        return {} if look is None else {CONSOLIDATE: (look, work)}

    @staticmethod
    def _linked(connection: Connection, scope: Scope, wanted: Sequence[Link]) -> list[Link]:
        """Link what is accepted; return what is linked now."""
        made: set[Link] = set()
        for kind in sorted(KINDS):
            links: dict[UUID, list[UUID]] = defaultdict(list)
            for one in wanted:
                if one.kind == kind:
                    links[one.newer_id].append(one.older_id)
            linked = supersede(connection, scope, links, kind=kind, anew=False)
            made |= {Link(older_id, newer_id, kind) for newer_id, older in linked.items() for older_id in older}
        return [one for one in wanted if one in made]

    def _fill(self, scope: Scope) -> None:
        """Let what an earlier release stored be looked up too, by a number that tells nothing."""
        after: UUID | None = None
        while True:
            with self._database.transaction(scope) as connection:
                after = fill_likenesses(self._record, connection, scope, after=after, limit=_AT_ONCE, but=held_among)
            if after is None:
                return

    def _propose(self, caller: Caller, scope: Scope, likenesses: Sequence[int], *, dry: bool) -> list[Link]:
        """Propose that the newest memory of each likeness stand for those that say the same; return what is new."""
        found: list[Link] = []
        seen: Seen | None = None
        more = self._similarity is not None and bool(likenesses)
        while more:
            with self._database.transaction(scope) as connection:
                groups, seen = newest_first(self._record, connection, scope, likenesses, seen=seen, limit=_MOST)
                made = propose(connection, scope, self._alike(connection, scope, groups))
                found += made
                if dry:
                    connection.rollback()
                elif made:
                    self._tell(connection, caller, made, MemoriesConsolidated(proposed=len(made)))
            more = seen is not None
        return found

    def _alike(self, connection: Connection, scope: Scope, groups: Sequence[Sequence[IndexEntry]]) -> list[Link]:
        similarity = self._similarity
        if similarity is None:
            return []
        links = [
            Link(one.entry.memory.id, newest.entry.memory.id)
            for newest, *older in ([Worded(entry) for entry in group] for group in groups)
            for one in older
            if says_the_same(one, newest, similarity)
        ]
        held = held_among(connection, scope, [link.older_id for link in links])
        return [link for link in links if link.older_id not in held]

    def _tell(
        self, connection: Connection, caller: Caller, links: Sequence[Link], detail: MemoriesConsolidated
    ) -> None:
        self._trail.write(
            connection,
            caller,
            AuditEvent.MEMORIES_CONSOLIDATED,
            targets=list(dict.fromkeys(link.newer_id for link in links)),
            results=[link.older_id for link in links],
            detail=detail,
        )
