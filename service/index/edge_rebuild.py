"""A shard that is filled from the record beside the one that serves, and keeps up with what is written meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from uuid import UUID

from service.index.edge_shard import Shard, removed, stored
from service.index.edge_writes import Write
from service.index.interface import Point
from service.index.selection import point_id, point_ids
from service.scope import Scope


class EdgeRebuild:
    """See `Rebuild`."""

    def __init__(self, shard: Shard, dimensions: int, writing: threading.Lock) -> None:
        self.shard = shard
        self.dimensions = dimensions
        self.writing = writing
        #: Points that were removed since the beginning. The record may have been read before that.
        self.gone: set[UUID] = set()
        #: Deleted or replaced points whose vectors are in the new shard's files.
        self.left_behind = 0

    def of(self, scope: Scope) -> EdgeRebuildWriter:
        """See `Rebuild`."""
        return EdgeRebuildWriter(self, scope)

    def follow(self, write: Write, stored: Collection[UUID], removed: Collection[UUID], left_behind: int) -> None:
        """Write what was written to the index that serves. The writing lock is held."""
        self.shard.write([write])
        self.gone.difference_update(stored)
        self.gone.update(removed)
        self.left_behind += left_behind


class EdgeRebuildWriter:
    """One tenant's part of the new shard (`ScopedWriter`)."""

    def __init__(self, rebuild: EdgeRebuild, scope: Scope) -> None:
        self._rebuild = rebuild
        self._tenant = scope.tenant_id

    def upsert(self, points: Sequence[Point]) -> None:
        """Store points as the record has them; what was removed meanwhile stays removed."""
        with self._rebuild.writing:
            kept = [point for point in points if point_id(self._tenant, point.memory_id) not in self._rebuild.gone]
            self._rebuild.shard.write([stored(self._tenant, kept, self._rebuild.dimensions)])

    def delete(self, memory_ids: Collection[UUID]) -> None:
        """Remove points from the new shard."""
        ids = point_ids(self._tenant, memory_ids)
        with self._rebuild.writing:
            self._rebuild.follow(removed(self._tenant, ids), (), ids, len(ids))
