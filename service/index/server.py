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
from typing import Any, Final
from uuid import UUID

from qdrant_client import QdrantClient, models

from service import clock
from service.errors import IndexUnavailable
from service.index.failures import failures
from service.index.interface import Dense, Point, ScopedWriter
from service.index.points import IDENTITY, checked, identity
from service.index.scoped import ByMeaning, ByWords, Found, TenantIndex, chunks
from service.index.selection import Every, Selection, point_ids
from service.index.server_layout import differences
from service.index.server_requests import (
    Layout,
    Quantized,
    collection,
    payload_indexes,
    point_structs,
    query_request,
    server_filter,
)
from service.scope import Scope, TenantId

_log = logging.getLogger("memvault.index")
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
    is `IndexUnavailable`.
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
        self._next: str | None = None
        self._looked: float | None = None
        self._version: tuple[int, ...] | None = None
        self._opened = False
        self._fixed: tuple[str, ...] = ()

    def of(self, scope: Scope) -> TenantIndex:
        """See `Index`."""
        return TenantIndex(self, scope)

    @contextmanager
    def reading(self, doing: str) -> Iterator[_Reader]:
        """See `Engine`."""
        with self._using(doing):
            own_idf = self._version is not None and self._version >= OWN_IDF
            yield _Reader(self._client, self._alias, own_idf=own_idf, quantization=self._layout.quantization)

    def checked(self, vector: Dense) -> list[float]:
        """See `Engine`."""
        return checked(vector, self.dimensions)

    def store(self, tenant_id: TenantId, points: Sequence[Point]) -> None:
        """See `Engine`."""
        # All are made before the first is stored, so that a bad one stores none.
        made = [point_structs(tenant_id, chunk, self.dimensions) for chunk in chunks(points)]
        with self._using("write"):
            for groups in made:
                for condition, structs in groups:
                    self._everywhere(partial(self._upsert, structs=structs, condition=condition))

    def remove(self, ids: Collection[UUID]) -> None:
        """See `Engine`."""
        with self._using("write"):
            selector = models.PointIdsList(points=[str(one) for one in ids])
            self._everywhere(lambda name: self._client.delete(name, selector, wait=True))

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
                self._looked, self._fixed = None, ()
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
            aliases = self._aliases()
            return aliases.get(self._alias) is not None and aliases.get(self._alias) == aliases.get(
                self._complete_alias
            )

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
            f"{_dotted(OWN_IDF)} or newer counts it over each tenant's own memories"
        )
        return found | {"keyword rarity per tenant": ("off", reason)}

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
        with self.reading("count") as reader:
            return reader.count(Every())

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
            for one in self._client.get_collections().collections:
                if one.name.startswith(f"{self._alias}-"):
                    self._client.delete_collection(one.name)

    def fill(self, target: str, tenant_id: TenantId, points: Sequence[Point]) -> None:
        """Store points in the collection that is being filled, each only over an older one."""
        with self._using("rebuild"):
            for chunk in chunks(points):
                for condition, structs in point_structs(tenant_id, chunk, self.dimensions):
                    self._upsert(target, structs=structs, condition=condition)

    def drain(self, target: str, ids: Collection[UUID]) -> None:
        """Remove points from the collection that is being filled."""
        with self._using("rebuild"):
            self._client.delete(target, models.PointIdsList(points=[str(one) for one in ids]), wait=True)

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
            self._move({self._alias: first})
        else:
            self._fit()
        self._opened = True

    def _fit(self) -> None:
        """Bring the collection that is there to the settings, as far as that goes without making it again."""
        found = differences(self._client.get_collection(self._alias), self._layout, self.dimensions)
        for key, schema in payload_indexes().items():
            if key.value in found.unindexed:
                self._client.create_payload_index(self._alias, key.value, field_schema=schema, wait=True)
        if found.changes:
            self._client.update_collection(self._alias, **found.changes)
            _log.info("the index on the server is changed to the settings", extra={"changed": sorted(found.changes)})
        for reason in found.fixed:
            _log.warning("the index keeps its layout until it is made again by `memvault index rebuild`: %s", reason)
        self._fixed = found.fixed

    def _create(self, name: str) -> None:
        """Make a collection with its payload indexes. One that another process makes meanwhile is as good."""
        if not self._client.collection_exists(name):
            try:
                self._client.create_collection(
                    name, **collection(self.dimensions, self._layout, metadata=self._made_for)
                )
            except Exception:
                if not self._client.collection_exists(name):
                    raise
        for key, schema in payload_indexes().items():
            self._client.create_payload_index(name, key.value, field_schema=schema, wait=True)

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

    def _upsert(self, name: str, *, structs: list[models.PointStruct], condition: models.Filter) -> None:
        self._client.upsert(name, structs, wait=True, update_filter=condition)

    def _everywhere(self, write: Callable[[str], Any]) -> None:
        """Write to the collection that serves, and to the one that is being filled beside it."""
        write(self._alias)
        following = self._following()
        if following is None:
            return
        try:
            write(following)
        except Exception:
            # Given up or put in place meanwhile; else the write has failed.
            if self._client.collection_exists(following):
                raise

    def _following(self) -> str | None:
        """Return the collection that is being filled, as it was some moments ago."""
        now = clock.monotonic()
        if self._looked is None or now - self._looked >= _LOOK_EVERY:
            self._next, self._looked = self._aliases().get(self._next_alias), now
        return self._next

    def _sweep(self) -> None:
        """Remove the collections of this model that nothing points at any more, and a rebuild that was cut short."""
        aliases = self._aliases()
        if self._next_alias in aliases:
            self._move({self._next_alias: None})
        kept = {aliases.get(self._alias), aliases.get(self._complete_alias)}
        for one in self._client.get_collections().collections:
            if one.name.startswith(f"{self._alias}-") and one.name not in kept:
                self._client.delete_collection(one.name)


class _Reader:
    """See `Reader`."""

    def __init__(self, client: QdrantClient, name: str, *, own_idf: bool, quantization: Quantized) -> None:
        self._quantization = quantization
        self._client = client
        self._name = name
        self._own_idf = own_idf

    def ask(self, asked: Sequence[ByMeaning | ByWords | None]) -> list[dict[UUID, Found]]:
        """See `Reader`."""
        requests = {
            number: query_request(question, own_idf=self._own_idf, quantization=self._quantization)
            for number, question in enumerate(asked)
            if question is not None
        }
        answers = self._client.query_batch_points(self._name, list(requests.values())) if requests else []
        found = dict(zip(requests, answers, strict=True))
        return [
            {UUID(str(point.id)): Found(point.score, point.payload) for point in found[number].points}
            if number in found
            else {}
            for number in range(len(asked))
        ]

    def scroll(self, where: Selection, *, limit: int, after: UUID | None = None) -> tuple[dict[UUID, int], UUID | None]:
        """See `Reader`."""
        records, cursor = self._client.scroll(
            self._name,
            scroll_filter=server_filter(where),
            limit=limit,
            offset=None if after is None else str(after),
            with_payload=IDENTITY,
        )
        return dict(identity(record.payload) for record in records), None if cursor is None else UUID(str(cursor))

    def count(self, where: Selection) -> int:
        """See `Reader`."""
        return self._client.count(self._name, count_filter=server_filter(where), exact=True).count


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
        self._index.drain(self._target, point_ids(self._tenant, memory_ids))


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
