"""What a search of an index found, in columns: some hundred memories are put in order without an object for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Final, NamedTuple
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from service.index.questions import Row
from service.index.times import moment

#: The place of a memory that has none.
NO_PLACE: Final = -1


class Candidate(NamedTuple):
    """A memory that may be an answer: cosine in [-1, 1], and raw BM25, which is 0 without a word in common."""

    memory_id: UUID
    version: int
    semantic: float
    bm25: float
    place: int | None = None
    created_at: datetime | None = None


@dataclass(frozen=True)
class Candidates:
    """Candidates as an index gives them, each memory once; iterated, they are `Candidate` objects.

    The columns are in the order of the rows: `semantic` and `bm25` as 64-bit floats, `places` as 64-bit integers
    (-1 for none), `created` in seconds since 1970 (NaN for unknown), and `ids` as texts, which sort as the ids do.
    """

    rows: Sequence[Row] = ()

    @classmethod
    def of(cls, candidates: Iterable[Candidate]) -> Candidates:
        """Return the same in columns."""
        return cls(
            [
                (str(id_), version, semantic, bm25, place, None if at is None else moment(at))
                for id_, version, semantic, bm25, place, at in candidates
            ]
        )

    def with_also(self, others: Candidates) -> Candidates:
        """Return these and those of the others that are not among them."""
        known = {row[0] for row in self.rows}
        return Candidates([*self.rows, *(row for row in others.rows if row[0] not in known)])

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Candidate]:
        for id_, version, semantic, bm25, place, at in self.rows:
            created_at = None if at is None else datetime.fromisoformat(at)
            yield Candidate(UUID(id_), version, semantic, bm25, place, created_at)

    @cached_property
    def ids(self) -> NDArray[np.str_]:
        """See the class."""
        return np.array(self._column(0), dtype="U36")

    @cached_property
    def semantic(self) -> NDArray[np.float64]:
        """See the class."""
        return np.array(self._column(2), dtype=np.float64)

    @cached_property
    def bm25(self) -> NDArray[np.float64]:
        """See the class."""
        return np.array(self._column(3), dtype=np.float64)

    @cached_property
    def places(self) -> NDArray[np.int64]:
        """See the class."""
        return np.array([NO_PLACE if place is None else place for place in self._column(4)], dtype=np.int64)

    @cached_property
    def created(self) -> NDArray[np.float64]:
        """See the class."""
        moments = [np.nan if at is None else datetime.fromisoformat(at).timestamp() for at in self._column(5)]
        return np.array(moments, dtype=np.float64)

    @cached_property
    def _columns(self) -> Sequence[Sequence[Any]]:
        return list(zip(*self.rows, strict=True))

    def _column(self, number: int) -> Sequence[Any]:
        return self._columns[number] if self.rows else ()
