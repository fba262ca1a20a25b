"""The order of the candidates of a search, and the score that each is shown with."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from heapq import nlargest
from typing import Final, NamedTuple
from uuid import UUID

from service.index.interface import Candidate
from service.index.neighbours import SEEDS, added
from service.index.strength import strength
from service.records import Signals

#: The BM25 score that counts half. The best hit of a LoCoMo question has 13 in the median.
HALF: Final = 12.0

#: What one word in common is worth at least, whatever it weighs: not less than the default threshold of a search, so
#: that in a small tenant, where every word is common, a hit by words alone is still a hit.
FLOOR: Final = 0.1


class Scored(NamedTuple):
    """A memory with its score in [0, 1], and what that and its place come from; see `Signals`."""

    memory_id: UUID
    score: float
    semantic: float
    keyword: float
    bm25: float
    own: float
    neighbours: float
    time: float
    rank: float

    @property
    def signals(self) -> Signals:
        """The same as it is told to callers."""
        return Signals(
            self.semantic, self.keyword, self.bm25, self.own, neighbours=self.neighbours, time=self.time, rank=self.rank
        )


def keyword(bm25: float) -> float:
    """Return BM25 on the scale of a cosine: 0 without a word in common, else from 0.1 towards 1."""
    return FLOOR + (1 - FLOOR) * bm25 / (bm25 + HALF) if bm25 > 0 else 0.0


def fuse(
    candidates: Iterable[Candidate],
    *,
    threshold: float = 0.0,
    neighbours: bool = False,
    boosts: Sequence[float] | None = None,
) -> list[Scored]:
    """Return the candidates whose own score reaches the threshold, the best first. Equal ones are ordered by id.

    The own score is 1 - (1 - semantic) * (1 - keyword). It depends on the candidate alone and not on what else was
    found, so a threshold means the same in every request. The order goes by the cosine and the share that the BM25 has
    of the request's best, and by what `neighbours` and `boosts` (one for each candidate) add. The score that is shown
    follows the order: it is the own one, or that of a later candidate where that is more.
    """
    found = list(candidates)
    best = max((one.bm25 for one in found), default=0.0)
    strengths = [strength(one.semantic, one.bm25, best) for one in found]
    lifts = _lifts(found, strengths) if neighbours else {}
    given = [0.0] * len(found) if boosts is None else boosts
    scored = []
    for (id_, _, semantic, bm25, place, _), alone, boost in zip(found, strengths, given, strict=True):
        own, words = _own(semantic, bm25)
        if own >= threshold:
            lift = lifts.get(place, 0.0) if place is not None and lifts else 0.0
            scored.append(Scored(id_, own, semantic, words, bm25, own, lift, boost, alone + lift + boost))
    scored.sort(key=_best_first)
    return _following(scored)


def _best_first(one: Scored) -> tuple[float, int]:
    return -one.rank, one.memory_id.int


def _own(semantic: float, bm25: float) -> tuple[float, float]:
    meaning, words = min(max(semantic, 0.0), 1.0), keyword(bm25)
    # Added up this way a signal that stands alone is kept to the last digit.
    return (min(meaning + words * (1 - meaning), 1.0) if meaning else words), words


def _lifts(found: Collection[Candidate], strengths: Collection[float]) -> dict[int, float]:
    by_place: dict[int, float] = {}
    for one, alone in zip(found, strengths, strict=True):
        if one.place is not None:
            by_place[one.place] = max(alone, by_place.get(one.place, 0.0))
    # Equal ones in the order of their places, so that the same search has the same answer.
    return added(by_place, nlargest(SEEDS, by_place, key=lambda place: (by_place[place], -place)))


def _following(ordered: list[Scored]) -> list[Scored]:
    """Return the same with scores that fall: none is less than one behind it."""
    least = 0.0
    for number in range(len(ordered) - 1, -1, -1):
        one = ordered[number]
        least = max(least, one.score)
        if one.score < least:
            ordered[number] = one._replace(score=least)
    return ordered
