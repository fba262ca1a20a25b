"""Compares the index with the record, tenant by tenant, by ids and versions, and mends what differs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from service.index.interface import Index
from service.observability.metrics import INDEX_MENDED
from service.scope import Scope, TenantId, service_principal
from service.storage.database import Database
from service.storage.outbox import enqueue
from service.storage.versions import versions, versions_after

_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class Difference:
    """What differed: points without a memory, and memories whose point is missing or of another version."""

    orphans: int = 0
    behind: int = 0

    def __add__(self, other: Difference) -> Difference:
        return Difference(self.orphans + other.orphans, self.behind + other.behind)


class Agreement:
    """Makes the index agree with the record where it does not."""

    def __init__(self, database: Database, index: Index) -> None:
        self._database = database
        self._index = index

    def mend(self, tenants: Iterable[TenantId], alive: Callable[[], None] = lambda: None) -> Difference:
        """Remove points without a memory and leave the others to the outbox; return how many there were of each.

        `alive` is called after each part, since comparing a large index takes long.

        Raises:
            IndexUnavailable, RecordUnavailable: with what was mended so far.
        """
        total = Difference()
        for tenant_id in tenants:
            scope = Scope.of(service_principal(tenant_id))
            found = self._points(scope, alive) + self._memories(scope, alive)
            INDEX_MENDED.labels("orphans").inc(found.orphans)
            INDEX_MENDED.labels("behind").inc(found.behind)
            total += found
        return total

    def _points(self, scope: Scope, alive: Callable[[], None]) -> Difference:
        """Remove the points that have no memory any more."""
        part, after, orphans = self._index.of(scope), None, 0
        while True:
            points, after = part.versions(after=after, limit=_PAGE)
            with self._database.transaction(scope) as connection:
                known = versions(connection, points)
            # One that is written again under the same id in between has an outbox row, which brings its point back.
            gone = points.keys() - known.keys()
            if gone:
                part.delete(gone)
                orphans += len(gone)
            alive()
            if after is None:
                return Difference(orphans=orphans)

    def _memories(self, scope: Scope, alive: Callable[[], None]) -> Difference:
        """Note in the outbox the memories whose point is missing or is of another version."""
        part, behind = self._index.of(scope), 0
        after: UUID | None = None
        while True:
            with self._database.transaction(scope) as connection:
                known = versions_after(connection, after, limit=_PAGE)
            present = part.existing(known)
            missing = {one: version for one, version in known.items() if present.get(one) != version}
            if missing:
                with self._database.transaction(scope) as connection:
                    enqueue(connection, scope, missing)
                behind += len(missing)
            alive()
            if len(known) < _PAGE:
                return Difference(behind=behind)
            after = max(known)
