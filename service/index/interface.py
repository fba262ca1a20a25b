"""What an index is: the shapes that go in and come out, and the one interface that all adapters have."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol, TypeAlias
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from service.errors import ConfigurationError, IndexUnavailable
from service.filters.ast import Node
from service.filters.lookup import Lookup
from service.index.candidates import Candidates
from service.index.questions import SparseTerms
from service.scope import Scope

Dense: TypeAlias = NDArray[np.float32] | Sequence[float]


class IndexLocked(ConfigurationError):
    """Another process has the index folder open."""

    code = "index_locked"


class IndexDamaged(IndexUnavailable):
    """The index folder cannot be used. Nothing is lost: the index is made again from the record."""

    code = "index_damaged"


@dataclass(frozen=True, slots=True)
class Point:
    """What the index keeps of one memory: vectors, surrogates, filter tokens and times, and no readable content."""

    memory_id: UUID
    version: int
    dense: Dense
    text_terms: SparseTerms
    created_at: datetime
    updated_at: datetime
    user_id: UUID | None = None
    agent_id: UUID | None = None
    app_id: UUID | None = None
    run_id: UUID | None = None
    tokens: Sequence[int] = ()
    expires_on: date | None = None
    #: Where it stands in the line of its subjects; those beside it have the numbers beside it.
    place: int | None = None


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """What a search found.

    With `exact` every candidate meets the filter; else the caller must check them on the decrypted rows and, if too few
    are left, ask again with a larger limit until `exhausted`, which says that a larger limit finds no more.
    What was not found has at most the cosine `semantic_left` and the BM25 `bm25_left`.
    """

    candidates: Candidates
    exact: bool
    exhausted: bool
    semantic_left: float
    bm25_left: float


class ScopedWriter(Protocol):
    """Writes the points of one tenant."""

    def upsert(self, points: Sequence[Point]) -> None:
        """Store points. A point that is older (by `version`) than what is stored is passed over."""
        ...

    def delete(self, memory_ids: Collection[UUID]) -> None:
        """Remove points; ids that are not there, or are another tenant's, are passed over."""
        ...


class ScopedIndex(ScopedWriter, Protocol):
    """The points of one tenant. No method reaches another's, whatever filter or ids it is given."""

    def search(
        self,
        vector: Dense,
        terms: SparseTerms,
        where: Node,
        lookup: Lookup,
        *,
        limit: int,
        users: frozenset[UUID] | None = None,
        on: date | None = None,
        neighbours: bool = False,
    ) -> SearchAnswer:
        """Return the `limit` nearest by meaning and the `limit` best by words, both scores exact for all of them.

        `users` narrows to the rows of these users; it must be given when the scope is bound. `on` leaves out what is
        past its last visible day on that day. `neighbours` adds what stands around the best of them and meets the same
        conditions, where the filter can be met exactly. No order is promised: `service.index.fusion` makes one.
        """
        ...

    def existing(self, memory_ids: Collection[UUID]) -> dict[UUID, int]:
        """Return those of the ids that have a point, with the version of it."""
        ...

    def versions(self, *, after: UUID | None = None, limit: int = 1000) -> tuple[dict[UUID, int], UUID | None]:
        """Return some points (id and version) and the cursor for `after` to go on with, None at the end."""
        ...

    def count(self, *, subject: UUID | None = None) -> int:
        """Return how many points the tenant has, or those of one user, agent, app or run; expired ones included."""
        ...


class Rebuild(Protocol):
    """A new index that is being filled beside the one that serves."""

    def of(self, scope: Scope) -> ScopedWriter:
        """Return the tenant's part of the new index."""
        ...


class Index(Protocol):
    """The index of all tenants. Safe to use from many threads. Failures of the engine raise `IndexUnavailable`."""

    @property
    def compacts(self) -> bool:
        """Whether `compact` can do anything; else only a rebuild leaves nothing of what was deleted on the disk."""
        ...

    @property
    def shared(self) -> bool:
        """Whether other processes write to it too."""
        ...

    def of(self, scope: Scope) -> ScopedIndex:
        """Return the part of the index that a scope opens: the only way to the data."""
        ...

    def rebuild(self) -> AbstractContextManager[Rebuild]:
        """Fill a new index from the record while this one serves; leaving the block switches, an error abandons.

        What is written to this index meanwhile reaches the new one too. One at a time, else `IndexUnavailable`. The new
        one is complete.
        """
        ...

    def is_complete(self) -> bool:
        """Tell whether the index has all that the record had when it was made; False for one that began empty.

        It is kept with the index: a rebuild that is cut short leaves it as it was.
        """
        ...

    def mark_complete(self) -> None:
        """Remember, durably, that nothing is missing though the index began empty: the record was empty too."""
        ...

    def mark_incomplete(self) -> None:
        """Remember, durably, that the index may lack what the record has: the record is another one than before."""
        ...

    def features(self) -> Mapping[str, tuple[str, str | None]]:
        """Return what this index cannot do as it should, by name: its state and the reason. Costs nothing."""
        ...

    def has_leftovers(self) -> bool:
        """Tell whether a rebuild is under way or was cut short and left something behind, to which writes go too."""
        ...

    def sweep(self) -> None:
        """Remove what a rebuild left behind; the caller sees to it that none is under way in any process."""
        ...

    def maintain(self) -> bool:
        """Compact if it is worth it; tell whether it was done. Takes long: for a background thread."""
        ...

    def compact(self) -> bool:
        """Write the live points anew, so that deleted vectors are no longer on the disk, and index them.

        Searches and writes go on meanwhile. False when a rebuild or another compaction is under way.
        """
        ...

    def flush(self) -> None:
        """Make everything that was written durable against a loss of power."""
        ...

    def count(self) -> int:
        """Return how many points there are in all."""
        ...

    def close(self) -> None:
        """Flush and let go of the index. Later calls raise `IndexUnavailable`."""
        ...
