"""The embedded index: one Qdrant Edge shard for all tenants, replaced as a whole when it is compacted or rebuilt."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final
from uuid import UUID

from service.errors import IndexUnavailable
from service.index.edge_folder import IndexFolder
from service.index.edge_process import CallFailed, ShardLost
from service.index.edge_reader import EdgeReader
from service.index.edge_rebuild import EdgeRebuild
from service.index.edge_shard import Call, Shard, removed, stored
from service.index.edge_writes import Write
from service.index.interface import Dense, Point
from service.index.points import checked
from service.index.scoped import CHUNK, TenantIndex, chunks
from service.index.selection import Every, own_subject, point_ids
from service.scope import Scope, TenantId

#: Compaction is worth it after this many removals, or this share of the points,
_REMOVED_LEAST: Final = 1000
_REMOVED_SHARE: Final = 0.05
#: (they are written down after so many, for the next process)
_REMOVED_KEPT_AFTER: Final = 100
#: or when something deleted has been on the disk for this many seconds,
_REMOVED_SECONDS: Final = 24 * 3600.0
#: or when this many points, or this share of all, came since the last one, in this process or before it.
_UNCOMPRESSED_LEAST: Final = 2_000
_UNCOMPRESSED_SHARE: Final = 0.25
#: Writes that go to a new shard while others wait; more go there before, while others go on.
_LAST_WRITES: Final = 20


class EdgeIndex:
    """The index in a folder (`Index`). One process can have it open.

    `model` names what makes the vectors: those of different models are never compared. `fresh` begins with an empty
    index whatever is there, for a rebuild from the record. Raises `IndexLocked`, or `IndexDamaged` when what is there
    cannot be used.
    """

    compacts: bool = True

    #: The folder has one owner.
    shared: bool = False

    def __init__(self, folder: Path, *, dimensions: int, model: str, fresh: bool = False) -> None:
        self.dimensions = dimensions
        self._folder = IndexFolder(folder, dimensions=dimensions, model=model)
        try:
            self._shard = self._open(fresh)
            try:
                self._folder.sweep(self._shard.folder)
            except BaseException:
                self._shard.discard()
                raise
        except BaseException:
            self._folder.close()
            raise
        # Held for the length of a write; searches never wait for it.
        self._writing = threading.Lock()
        # Held for the length of a rebuild or a compaction.
        self._replacing = threading.Lock()
        # Held for a moment, to take hold of the shard that serves or to put another in its place.
        self._swap = threading.Lock()
        self._journal: list[Write] | None = None
        self._rebuild: EdgeRebuild | None = None
        self._filled: Shard | None = None
        # Points of the shard that serves whose deleted data are in its files, and how many of them are written down.
        self._removed = self._removed_kept = self._folder.removed_count()
        # What the last compaction has left, for there may be too few to be compressed.
        self._left = 0
        self._closed = False

    def of(self, scope: Scope) -> TenantIndex:
        """See `Index`."""
        return TenantIndex(self, scope)

    def subject(self, tenant_id: TenantId, surrogate: UUID) -> UUID:
        """See `Engine`."""
        return own_subject(tenant_id, surrogate)

    @contextmanager
    def reading(self, doing: str, tenant_id: TenantId) -> Iterator[EdgeReader]:
        """See `Engine`."""
        with self.using(doing) as call:
            yield EdgeReader(call, tenant_id)

    def checked(self, vector: Dense) -> list[float]:
        """See `Engine`."""
        return checked(vector, self.dimensions)

    def store(self, tenant_id: TenantId, points: Sequence[Point]) -> None:
        """See `Engine`."""
        # All are made before the first is stored, so that a bad one stores none.
        made = [(chunk, stored(tenant_id, chunk, self.dimensions)) for chunk in chunks(points)]
        for chunk, write in made:
            ids = point_ids(tenant_id, [point.memory_id for point in chunk])
            self.write(write, stored=ids, replaced=sum(point.version > 1 for point in chunk))

    def remove(self, tenant_id: TenantId, ids: Collection[UUID]) -> None:
        """See `Engine`."""
        self.write(removed(tenant_id, ids), removed=ids)

    @contextmanager
    def using(self, doing: str) -> Iterator[Call]:
        """Lend the shard that serves now; it stays open until the block is left."""
        with ExitStack() as stack:
            with self._swap:
                call = stack.enter_context(self._shard.use(doing))
            yield call

    def write(
        self,
        write: Write,
        *,
        stored: Collection[UUID] = (),
        removed: Collection[UUID] = (),
        replaced: int = 0,
    ) -> None:
        """Write to the shard that serves and to the one that is being made beside it."""
        left_behind = len(removed) + replaced
        with self._writing:
            self._folder.check_room()
            if left_behind:
                self._folder.mark_removed()
            self._shard.write([write])
            self._removed += left_behind
            if self._removed - self._removed_kept >= _REMOVED_KEPT_AFTER:
                self._keep_removed()
            if self._journal is not None:
                self._journal.append(write)
            if self._rebuild is not None:
                self._rebuild.follow(write, stored, removed, left_behind)

    @contextmanager
    def rebuild(self) -> Iterator[EdgeRebuild]:
        """See `Index`."""
        if not self._replacing.acquire(blocking=False):
            raise IndexUnavailable("The index is being compacted or rebuilt already; try again in a minute.")
        try:
            self._refuse_closed()
            self._folder.check_room()
            shard = Shard.create(self._folder.new(), self.dimensions, held=self._folder.held)
            rebuild = EdgeRebuild(shard, self.dimensions, self._writing)
            with self._writing:
                self._rebuild = rebuild
            try:
                yield rebuild
                self._flush(shard)
                with self._writing:
                    old = self._replace(shard, removed=rebuild.left_behind, complete=True)
                    self._rebuild, self._left = None, 0
            except BaseException:
                with self._writing:
                    self._rebuild = None
                self._discard(shard)
                raise
            self._discard(old)
        finally:
            self._replacing.release()

    def features(self) -> Mapping[str, tuple[str, str | None]]:
        """See `Index`. Nothing is missing."""
        return {}

    def has_leftovers(self) -> bool:
        """See `Index`. They were swept away when the folder was opened."""
        return False

    def sweep(self) -> None:
        """See `Index`. There is nothing to do."""

    def maintain(self) -> bool:
        """See `Index`."""
        total, waiting = self.count(), self._folder.removed_seconds()
        with self._writing:
            self._keep_removed()
        due = (
            self._removed >= max(_REMOVED_LEAST, total * _REMOVED_SHARE)
            or self._uncompressed() - self._left >= max(_UNCOMPRESSED_LEAST, total * _UNCOMPRESSED_SHARE)
            or (waiting is not None and waiting >= _REMOVED_SECONDS)
        )
        return due and self.compact()

    def compact(self) -> bool:
        """See `Index`. It needs two and a half times the room of the index at most; a process of its own does it."""
        if not self._replacing.acquire(blocking=False):
            return False
        try:
            # Whose the folder is afterwards is not known. A `close` that comes later waits for the end of this.
            self._refuse_closed()
            self._compact()
            return True
        finally:
            self._replacing.release()

    def flush(self) -> None:
        """See `Index`."""
        with self.using("flush") as call:
            call("flush")

    def count(self) -> int:
        """See `Index`."""
        with self.using("count") as call:
            return int(call("count", Every()))

    def is_complete(self) -> bool:
        """See `Index`."""
        return self._folder.complete

    def mark_complete(self) -> None:
        """See `Index`."""
        with self._writing:
            if not self._folder.complete:
                self._folder.switch(self._shard.folder, complete=True)

    def mark_incomplete(self) -> None:
        """See `Index`."""
        with self._writing:
            if self._folder.complete:
                self._folder.switch(self._shard.folder, complete=False)

    def close(self) -> None:
        """See `Index`. Ends a compaction that is under way. Closing twice is closing once."""
        with self._writing:
            if self._closed:
                return
            self._closed = True
            if self._filled is not None:
                self._filled.kill()
            if self._rebuild is not None:
                # Its next write fails, and with it the rebuild.
                self._rebuild.shard.discard()
        with self._replacing, self._writing:
            try:
                self._keep_removed()
                self._shard.close()
            finally:
                self._folder.close()

    def _keep_removed(self) -> None:
        """Write down how many points were removed. Writes are locked; where it fails, it is done with the next ones."""
        if self._removed != self._removed_kept:
            with suppress(OSError):
                self._folder.count_removed(self._removed)
                self._removed_kept = self._removed

    def _uncompressed(self) -> int:
        with self.using("count") as call:
            return int(call("uncompressed"))

    def _open(self, fresh: bool) -> Shard:
        current = None if fresh else self._folder.current()
        if current is None:
            shard = Shard.create(self._folder.new(), self.dimensions, held=self._folder.held)
            try:
                self._folder.switch(shard.folder, complete=False)
                self._folder.clear_removed()
            except BaseException:
                shard.discard()
                raise
            return shard
        try:
            return Shard.load(current, held=self._folder.held)
        except IndexUnavailable as error:
            # That no process could be started, or that it was ended, says nothing about the files.
            why = error.__cause__
            if isinstance(why, CallFailed) or (isinstance(why, ShardLost) and why.crashed):
                # A full disk ends it too.
                self._folder.check_room()
                raise self._folder.damaged("the engine cannot open it") from error
            raise

    def _refuse_closed(self) -> None:
        with self._writing:
            if self._closed:
                raise IndexUnavailable("The index is closed: the service is shutting down.")

    def _compact(self) -> None:
        target = self._folder.new()
        try:
            # One that fails is tried again when as much has come as makes it due.
            self._left = self._uncompressed()
            with self._writing:
                self._journal, gone = [], self._removed
            self._fill(target)
            self._catch_up(Shard.load(target, held=self._folder.held), gone).discard()
            self._left = self._uncompressed()
        except (IndexUnavailable, OSError) as error:
            if self._closed:
                raise
            raise IndexUnavailable(
                f"The index in {self._folder.path} could not be compacted ({error.__cause__ or error}): is there room "
                "on the disk and in memory? It serves on as it was."
            ) from error
        finally:
            with self._writing:
                self._journal = None
            with suppress(OSError):
                self._folder.sweep(self._shard.folder)

    def _fill(self, target: Path) -> None:
        """Make a shard of the points that there are, compressed and indexed, in a process that ends with that."""
        # Without the lock on the folder: while it optimises it does not notice that the service was killed, and the
        # next start would have to wait for it. What it writes then is swept away.
        shard = Shard.create(target, self.dimensions, background=True)
        try:
            with self._writing:
                if self._closed:
                    raise IndexUnavailable("The index is closed: the service is shutting down.")
                self._filled = shard
            cursor = None
            while True:
                # In small parts, so that searches get their turn. What is written meanwhile is in the journal.
                with self.using("read") as serving:
                    points, cursor = serving("export", cursor, CHUNK)
                with shard.use("fill") as filled:
                    filled("take", points)
                if cursor is None:
                    break
            with shard.use("optimize") as filled:
                filled("optimize")
                filled("flush")
            shard.close()
        finally:
            with self._writing:
                self._filled = None
            shard.discard()

    def _catch_up(self, shard: Shard, gone: int) -> Shard:
        """Apply to a new shard what was written since its copy was taken, put it in place, and return the old one.

        `gone` points had been removed before: it has nothing of them.
        """
        try:
            while True:
                with self._writing:
                    missed, self._journal = self._journal or [], []
                    if len(missed) <= _LAST_WRITES:
                        shard.write(missed)
                        self._flush(shard)
                        left = self._removed - gone
                        return self._replace(shard, removed=left, complete=self._folder.complete)
                shard.write(missed)
        except BaseException:
            shard.discard()
            raise

    def _replace(self, shard: Shard, *, removed: int, complete: bool) -> Shard:
        """Put a shard in place and return the old one. `removed` points of it are deleted data. Writes are locked."""
        self._folder.switch(shard.folder, complete=complete)
        with self._swap:
            old, self._shard = self._shard, shard
        self._removed = self._removed_kept = removed
        # From here on nothing may fail. A mark that stays costs one more compaction.
        with suppress(OSError):
            self._folder.renew_removed(removed) if removed else self._folder.clear_removed()
        return old

    def _discard(self, shard: Shard) -> None:
        shard.discard()
        self._folder.remove(shard.folder)

    @staticmethod
    def _flush(shard: Shard) -> None:
        with shard.use("flush") as call:
            call("flush")
