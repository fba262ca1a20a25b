"""The index on a Qdrant server or cluster: one collection for all tenants behind an alias, shared by all replicas.

The aliases that stand for the state, for one embedding model:

    <name>-<model>            the collection that serves
    <name>-<model>-complete   the same collection, once it has all that the record had when it was made
    <name>-<model>-next       a collection that is being filled beside it; every process writes to both
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final, TypeVar
from uuid import UUID

from qdrant_client import QdrantClient, models

from service import clock
from service.errors import IndexUnavailable
from service.index.failures import failures, incomplete
from service.index.interface import Dense, Point, ScopedWriter
from service.index.points import checked
from service.index.scoped import TenantIndex
from service.index.selection import Every, point_ids
from service.index.server_layout import differences
from service.index.server_reader import Reach, ServerReader
from service.index.server_requests import (
    Layout,
    collection,
    payload_indexes,
    point_structs,
    portions,
    server_filter,
)
from service.index.server_shards import made_with, make_missing, refused, shard_key
from service.scope import Scope, TenantId

_log = logging.getLogger("memvault.index")
_T = TypeVar("_T")
_FORMAT: Final = 1
#: The oldest server that replaces a point only under a condition, which keeps an older version from winning.
OLDEST: Final = (1, 16)
#: From here on a server counts how rare a word is over a part of the points.
OWN_IDF: Final = (1, 19)
#: Seconds that a process goes on without asking whether a new collection is being filled.
_LOOK_EVERY: Final = 2.0
_WHAT_TO_DO: Final = "if this goes on, look at `index.url`, the state of the Qdrant server and its log."


class ServerIndex:
    """The index of `index.url` (`Index`). Any number of processes can have it open.

    `model` names what makes the vectors: each has collections of its own, so that two are never compared. Nothing is
    sent before the first use, so that the service starts while the server is away; a server that is away or too old
    is `IndexUnavailable`. So is a search until the index is complete: another process may have begun it anew.
    """

    compacts: bool = False

    #: Other processes write to it too.
    shared: bool = True

    def __init__(
        self, client: QdrantClient, *, dimensions: int, model: str, name: str, layout: Layout | None = None
    ) -> None:
        self.dimensions = dimensions
        self._client = client
        self._layout = layout or Layout()
        made_for = f"{_FORMAT}/{dimensions}/{model}"
        self._made_for = {"format": _FORMAT, "dimensions": dimensions, "model": model}
        self._alias = f"{name}-{hashlib.sha256(made_for.encode()).hexdigest()[:10]}"
        self._closed = False
        # The collections that serve, that are complete and that are being filled, as they were some moments ago, and
        # the number of shard keys that each of those that were met was made with.
        self._served: str | None = None
        self._whole: str | None = None
        self._next: str | None = None
        self._looked: float | None = None
        self._keys: dict[str, int] = {}
        self._version: tuple[int, ...] | None = None
        self._opened = False
        self._fixed: tuple[str, ...] = ()

    def of(self, scope: Scope) -> TenantIndex:
        """See `Index`."""
        return TenantIndex(self, scope)

    def subject(self, tenant_id: TenantId, surrogate: UUID) -> UUID:
        """See `Engine`."""
        return surrogate

    @contextmanager
    def reading(self, doing: str, tenant_id: TenantId) -> Iterator[ServerReader]:
        """See `Engine`."""
        with self._using(doing):
            own_idf = self._version is not None and self._version >= OWN_IDF
            if self._layout.shard_keys or self._number(self._alias):
                self._look()
            reach, whole = (Reach(self, alias, tenant_id) for alias in (self._alias, self._complete_alias))
            yield ServerReader(self._client, reach, whole, own_idf=own_idf, quantization=self._layout.quantization)

    def checked(self, vector: Dense) -> list[float]:
        """See `Engine`."""
        return checked(vector, self.dimensions)

    def store(self, tenant_id: TenantId, points: Sequence[Point]) -> None:
        """See `Engine`."""
        # All are made before the first is stored, so that a bad one stores none.
        made = [point_structs(tenant_id, chunk, self.dimensions) for chunk in portions(points)]
        with self._using("write"):
            for groups in made:
                for condition, structs in groups:
                    self._everywhere(tenant_id, partial(self._upsert, structs=structs, condition=condition))

    def remove(self, tenant_id: TenantId, ids: Collection[UUID]) -> None:
        """See `Engine`."""
        with self._using("write"):
            self._everywhere(tenant_id, partial(self._delete, ids=ids))

    @contextmanager
    def rebuild(self) -> Iterator[_Rebuild]:
        """See `Index`. The caller sees to it that one process at a time does this; what one left behind is dropped."""
        target = f"{self._alias}-{clock.new_id().hex}"
        with self._using("rebuild"):
            self._sweep()
            self._create(target)
            self._move({self._next_alias: target})
            self._looked = None
        try:
            # By then every process has seen the new collection and writes to both.
            time.sleep(2 * _LOOK_EVERY)
            yield _Rebuild(self, target)
            with self._using("rebuild"):
                if self._aliases().get(self._next_alias) != target:
                    raise IndexUnavailable("Another process has begun a rebuild of the index meanwhile; this one ends.")
                self._move({self._alias: target, self._complete_alias: target, self._next_alias: None})
                self._served, self._looked, self._fixed = target, None, ()
        except BaseException:
            with suppress(IndexUnavailable), self._using("rebuild"):
                if self._aliases().get(self._next_alias) == target:
                    self._move({self._next_alias: None})
                self._client.delete_collection(target)
            raise
        # Processes that write to both for some seconds more find one of the names gone, which they pass over.
        with suppress(IndexUnavailable), self._using("sweep"):
            self._sweep()

    def is_complete(self) -> bool:
        """See `Index`."""
        with self._using("look"):
            self._look(now=True)
            return self._served is not None and self._served == self._whole

    def mark_complete(self) -> None:
        """See `Index`."""
        with self._using("mark"):
            self._move({self._complete_alias: self._aliases()[self._alias]})

    def mark_incomplete(self) -> None:
        """See `Index`."""
        with self._using("mark"):
            self._move({self._complete_alias: None})

    def features(self) -> Mapping[str, tuple[str, str | None]]:
        """See `Index`."""
        found: dict[str, tuple[str, str | None]] = {}
        if self._fixed:
            reason = f"{'; '.join(self._fixed)}: `memvault index rebuild` makes it again"
            found["index layout"] = ("off", reason)
        if self._version is None or self._version >= OWN_IDF:
            return found
        reason = (
            f"the Qdrant server is {_dotted(self._version)} and counts how rare a word is over all tenants; "
            f"{_dotted(OWN_IDF)} or newer counts it among those whom a search names"
        )
        return found | {"keyword rarity per tenant": ("off", reason)}

    def has_leftovers(self) -> bool:
        """See `Index`."""
        with self._using("look"):
            return bool(self._leftovers())

    def sweep(self) -> None:
        """See `Index`."""
        with self._using("sweep"):
            self._sweep()

    def maintain(self) -> bool:
        """See `Index`. The server keeps itself in shape."""
        return False

    def compact(self) -> bool:
        """See `Index`. Only the server can do this; its optimizer does it when enough was deleted."""
        return False

    def flush(self) -> None:
        """See `Index`. Nothing to do: the server writes to its log before it answers."""
        self._check_open()

    def count(self) -> int:
        """See `Index`."""
        with self._using("count"):
            return self._client.count(self._alias, count_filter=server_filter(Every()), exact=True).count

    def close(self) -> None:
        """See `Index`."""
        if not self._closed:
            self._closed = True
            self._client.close()

    def drop(self) -> None:
        """Remove the collections of this model with their aliases; those of other models stay."""
        with failures("drop", what_to_do=_WHAT_TO_DO):
            ours = [
                alias for alias in self._aliases() if alias in (self._alias, self._complete_alias, self._next_alias)
            ]
            self._move(dict.fromkeys(ours))
            for name in self._collections():
                self._client.delete_collection(name)

    def exists(self) -> bool:
        """Tell whether the server has a collection of this model; none is made."""
        with failures("look", what_to_do=_WHAT_TO_DO):
            return bool(self._collections())

    def fill(self, target: str, tenant_id: TenantId, points: Sequence[Point]) -> None:
        """Store points in the collection that is being filled, each only over an older one."""
        with self._using("rebuild"):
            for chunk in portions(points):
                for condition, structs in point_structs(tenant_id, chunk, self.dimensions):
                    write = partial(self._upsert, structs=structs, condition=condition)
                    self.addressed(target, tenant_id, write)

    def drain(self, target: str, tenant_id: TenantId, ids: Collection[UUID]) -> None:
        """Remove points from the collection that is being filled."""
        with self._using("rebuild"):
            self.addressed(target, tenant_id, partial(self._delete, ids=ids))

    def addressed(self, name: str, tenant_id: TenantId, call: Callable[[str, str | None], _T]) -> _T:
        """Call with a collection and the shard key of a tenant in it.

        The collection that serves may have become another one, with other keys, since it was looked at last. The server
        refuses a key that is not there, and a write without the key that it needs; then this looks, and calls again.
        """
        key = shard_key(tenant_id, self._number(name))
        try:
            return call(name, key)
        except Exception as error:
            if not refused(error):
                raise
            self._keys.clear()
            self._look(now=True)
            other = shard_key(tenant_id, self._number(name))
            if other == key:
                raise
        return call(name, other)

    @property
    def _complete_alias(self) -> str:
        return f"{self._alias}-complete"

    @property
    def _next_alias(self) -> str:
        return f"{self._alias}-next"

    @contextmanager
    def _using(self, doing: str) -> Iterator[None]:
        self._check_open()
        with failures(doing, what_to_do=_WHAT_TO_DO):
            self._open()
            yield

    def _check_open(self) -> None:
        if self._closed:
            raise IndexUnavailable("The index is closed: the service is shutting down.")

    def _open(self) -> None:
        """Look at the server once, and make the collection where there is none; again until the server has answered."""
        if self._opened:
            return
        version = tuple(int(part) for part in self._client.info().version.split("-")[0].split(".")[:2])
        if version < OLDEST:
            raise IndexUnavailable(
                f"The Qdrant server of `index.url` is {_dotted(version)}: {_dotted(OLDEST)} or newer is needed."
            )
        self._version = version
        if self._alias not in self._aliases():
            first = f"{self._alias}-first"
            self._create(first)
            if self._alias not in self._aliases():
                self._move({self._alias: first})
            self._fixed = ()
        else:
            self._fit()
        self._look(now=True)
        self._opened = True

    def _fit(self) -> None:
        """Bring the collection that is there to the settings, as far as that goes without making it again."""
        info = self._client.get_collection(self._alias)
        found = differences(info, self._layout, self.dimensions)
        for key, schema in payload_indexes().items():
            if key.value in found.unindexed:
                self._client.create_payload_index(self._alias, key.value, field_schema=schema, wait=True)
        if found.changes:
            self._client.update_collection(self._alias, **found.changes)
            _log.info("the index on the server is changed to the settings", extra={"changed": sorted(found.changes)})
        for reason in found.fixed:
            _log.warning("the index keeps its layout until it is made again by `memvault index rebuild`: %s", reason)
        self._fixed = found.fixed
        if made_with(info):
            make_missing(self._client, self._aliases()[self._alias], made_with(info))

    def _create(self, name: str) -> None:
        """Make a collection with its payload indexes and keys. One that another process makes meanwhile is as good."""
        ours = False
        if not self._client.collection_exists(name):
            try:
                self._client.create_collection(
                    name, **collection(self.dimensions, self._layout, metadata=self._made_for)
                )
                ours = True
            except Exception:
                if not self._client.collection_exists(name):
                    raise
        self._keys.pop(name, None)
        try:
            make_missing(self._client, name, self._number(name))
        except IndexUnavailable:
            if ours:
                self._client.delete_collection(name)
            raise
        for key, schema in payload_indexes().items():
            self._client.create_payload_index(name, key.value, field_schema=schema, wait=True)

    def _collections(self) -> list[str]:
        """Return the collections of this model, those that serve and others."""
        names = (one.name for one in self._client.get_collections().collections)
        return [name for name in names if name.startswith(f"{self._alias}-")]

    def _aliases(self) -> dict[str, str]:
        return {one.alias_name: one.collection_name for one in self._client.get_aliases().aliases}

    def _move(self, targets: Mapping[str, str | None]) -> None:
        """Point aliases at collections, or remove them, all in one step."""
        known = self._aliases()
        operations: list[models.AliasOperations] = []
        for alias, target in targets.items():
            if alias in known:
                operations.append(models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)))
            if target is not None:
                create = models.CreateAlias(alias_name=alias, collection_name=target)
                operations.append(models.CreateAliasOperation(create_alias=create))
        if operations:
            self._client.update_collection_aliases(operations)

    def _upsert(
        self, name: str, key: str | None, *, structs: list[models.PointStruct], condition: models.Filter
    ) -> None:
        self._client.upsert(name, structs, wait=True, update_filter=condition, shard_key_selector=key)

    def _delete(self, name: str, key: str | None, *, ids: Collection[UUID]) -> None:
        selector = models.PointIdsList(points=[str(one) for one in ids])
        self._client.delete(name, selector, wait=True, shard_key_selector=key)

    def _everywhere(self, tenant_id: TenantId, write: Callable[[str, str | None], Any]) -> None:
        """Write to the collection that serves, and to the one that is being filled beside it."""
        self.addressed(self._alias, tenant_id, write)
        self._look()
        following = self._next
        if following is None:
            return
        try:
            self.addressed(following, tenant_id, write)
        except Exception:
            # Given up or put in place meanwhile; else the write has failed.
            if self._client.collection_exists(following):
                raise

    def _look(self, *, now: bool = False) -> None:
        """See which collections serve and are being filled, unless that was seen some moments ago."""
        at = clock.monotonic()
        if now or self._looked is None or at - self._looked >= _LOOK_EVERY:
            before, aliases = self._served, self._aliases()
            self._served, self._next = aliases.get(self._alias), aliases.get(self._next_alias)
            self._whole = aliases.get(self._complete_alias)
            if self._served is None:
                # The server has lost its data: the next use begins anew.
                self._opened = False
            if self._served is not None and before not in (None, self._served):
                # Another process has made it again.
                info = self._client.get_collection(self._served)
                self._keys[self._served] = made_with(info)
                self._fixed = differences(info, self._layout, self.dimensions).fixed
            self._looked = at

    def _number(self, name: str) -> int:
        """Return how many shard keys a collection has, which may be named by an alias."""
        if name == self._complete_alias and self._whole is None:
            self._look(now=True)
            if self._whole is None:
                raise incomplete()
        known = {self._alias: self._served, self._complete_alias: self._whole}
        collection = known.get(name) or name
        number = self._keys.get(collection)
        if number is None:
            number = self._keys[collection] = made_with(self._client.get_collection(collection))
        return number

    def _sweep(self) -> None:
        """Remove the collections of this model that nothing points at any more, and a rebuild that was cut short."""
        if self._next_alias in self._aliases():
            self._move({self._next_alias: None})
        for name in self._leftovers():
            self._client.delete_collection(name)

    def _leftovers(self) -> list[str]:
        """Return the collections of this model that do not serve."""
        aliases = self._aliases()
        kept = {aliases.get(self._alias), aliases.get(self._complete_alias)}
        return [name for name in self._collections() if name not in kept]


class _Rebuild:
    """See `Rebuild`."""

    def __init__(self, index: ServerIndex, target: str) -> None:
        self._index = index
        self._target = target

    def of(self, scope: Scope) -> ScopedWriter:
        """See `Rebuild`."""
        return _RebuildWriter(self._index, self._target, scope.tenant_id)


class _RebuildWriter:
    """One tenant's part of the collection that is being filled (`ScopedWriter`)."""

    def __init__(self, index: ServerIndex, target: str, tenant_id: TenantId) -> None:
        self._index = index
        self._target = target
        self._tenant = tenant_id

    def upsert(self, points: Sequence[Point]) -> None:
        """See `ScopedWriter`."""
        self._index.fill(self._target, self._tenant, points)

    def delete(self, memory_ids: Collection[UUID]) -> None:
        """See `ScopedWriter`."""
        self._index.drain(self._target, self._tenant, point_ids(self._tenant, memory_ids))


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
