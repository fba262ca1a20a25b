"""The order of the candidates of a search, and the score that each is shown with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, NamedTuple
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from service.index.candidates import Candidates
from service.index.interface import SearchAnswer
from service.index.lifts import lifts
from service.index.strength import ENOUGH, WORDS
from service.records import Signals

Floats = NDArray[np.float64]

#: The BM25 score that counts half. The best hit of a LoCoMo question has 13 in the median.
HALF: Final = 12.0

#: What one word in common is worth at least, whatever it weighs: not less than the default threshold of a search, so
#: that in a small tenant, where every word is common, a hit by words alone is still a hit.
FLOOR: Final = 0.1

#: By how much a cosine of 384 products in 32 bits is seen to differ from its own value, and more.
_ROUNDING: Final = 1e-6

#: Digits of a rank that are more than rounding.
_DIGITS: Final = 12


class Scored(NamedTuple):
    """A memory with its score in [0, 1], and what that and its place come from."""

    memory_id: UUID
    score: float
    signals: Signals


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """Memories in their order, the best first. Each is made into an object when it is asked for."""

    ids: NDArray[np.str_]
    #: One row for each of the signals, in the order of `Signals`.
    _figures: Floats

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Scored]:
        return iter(self.part(0, len(self)))

    def part(self, start: int, end: int) -> list[Scored]:
        """Return some in their order, as a slice does, with the scores of an answer of these alone."""
        signals = [Signals(*figures) for figures in self._figures[:, start:end].T.tolist()]
        scores = falling([one.fused for one in signals])
        ids = (UUID(str(id_)) for id_ in self.ids[start:end])
        return [Scored(*one) for one in zip(ids, scores, signals, strict=True)]


def falling(own: Sequence[float]) -> list[float]:
    """Return what the results of an answer are shown with: the own score, or that of a later one where it is more."""
    return list(accumulate(reversed(own), max))[::-1]


def keyword(bm25: Floats) -> Floats:
    """Return BM25 on the scale of a cosine: 0 without a word in common, else from 0.1 towards 1."""
    return np.where(bm25 > 0, FLOOR + (1 - FLOOR) * bm25 / (bm25 + HALF), 0.0)


def most_left(answer: SearchAnswer) -> float:
    """Return the own score that a memory which an index has not found may have at most."""
    words = float(keyword(np.array([answer.bm25_left]))[0])
    return 1 - (1 - min(max(answer.semantic_left, 0.0), 1.0)) * (1 - words)


def fuse(
    candidates: Candidates,
    *,
    threshold: float = 0.0,
    neighbours: bool = False,
    boosts: Floats | None = None,
    spared: NDArray[np.bool_] | None = None,
) -> Ranking:
    """Return the candidates whose own score reaches the threshold, the best first. Equal ones are ordered by id.

    Those that are `spared` need not reach it.

    The own score is 1 - (1 - semantic) * (1 - keyword). It depends on the cosine and the BM25 of the candidate
    and not on what else was found. The order goes by the cosine and the share that the BM25 has
    of the request's best (or of 12, if that is less), and by what `neighbours` and `boosts` (one for each candidate)
    add.
    """
    # The engine counts in 32 bits, by which the cosine of a text with itself may be a little more than 1.
    semantic, bm25 = np.clip(candidates.semantic, -1.0, 1.0), candidates.bm25
    meaning, words = np.clip(semantic, 0.0, 1.0), keyword(bm25)
    # Added up this way a signal that stands alone is kept to the last digit.
    own = np.minimum(meaning + words * (1 - meaning), 1.0)
    strengths = _strengths(semantic, bm25)
    nothing = np.zeros(len(candidates))
    lifted = lifts(candidates.places, strengths) if neighbours else nothing
    boosted = nothing if boosts is None else boosts
    rank = strengths + lifted + boosted
    # What differs by rounding alone is equal.
    order = np.lexsort((candidates.ids, -rank.round(_DIGITS)))
    # It may be a little less as well: 1 asks for the same text.
    enough = own >= min(threshold, 1 - _ROUNDING)
    if spared is not None:
        enough |= spared
    order = order[enough[order]]
    signals = np.array([semantic, words, bm25, own, lifted, boosted, rank])
    return Ranking(candidates.ids[order], signals[:, order])


def _strengths(semantic: Floats, bm25: Floats) -> Floats:
    """Return `service.index.strength.strength` of all."""
    strengths: Floats = np.maximum(semantic, 0.0) + WORDS * bm25 / max(bm25.max(initial=0.0), ENOUGH)
    return strengths
