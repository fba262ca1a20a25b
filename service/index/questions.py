"""What is asked of an index, and what it answers, in plain values that go to another process as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from service.index.selection import Selection


@dataclass(frozen=True, slots=True)
class SparseTerms:
    """Term ids (unsigned 32-bit, ascending, no repeats) and their weights. Empty is false."""

    ids: Sequence[int] = ()
    weights: Sequence[float] = ()

    def __bool__(self) -> bool:
        return bool(self.ids)


@dataclass(frozen=True, slots=True)
class ByMeaning:
    """Ask for the points that are nearest to a vector by cosine."""

    vector: Sequence[float]
    where: Selection
    limit: int


@dataclass(frozen=True, slots=True)
class ByWords:
    """Ask for the points that are best by BM25. How rare a word is, is counted over `corpus`.

    With `scores_only` nothing else is read back, which spares the engine to open each payload.
    """

    terms: SparseTerms
    where: Selection
    limit: int
    corpus: Selection
    scores_only: bool = False


@dataclass(frozen=True, slots=True)
class Search:
    """Ask for candidates: see `service.index.interface.ScopedIndex.search`.

    `allowed` are the points that may be found, the tenant among its conditions. `corpus` are those over which words are
    counted: all of the subjects that are named, whatever else is asked of what may be found.
    """

    vector: Sequence[float]
    terms: SparseTerms
    allowed: Selection
    corpus: Selection
    limit: int
    neighbours: bool


#: A memory that may be an answer: its id, its version, its cosine, its BM25, its place and when it was (ISO 8601).
Row: TypeAlias = tuple[str, int, float, float, int | None, str | None]


class Finding(NamedTuple):
    """What a search found, whether a larger limit would find no more, and what was not found has at most: a cosine and
    a BM25.
    """

    rows: list[Row]
    exhausted: bool
    semantic_left: float
    bm25_left: float
