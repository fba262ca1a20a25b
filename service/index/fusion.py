"""One score from the two signals of a candidate, meaning and words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple
from uuid import UUID

from service.index.interface import Candidate
from service.records import Signals

#: The BM25 score that counts half. The best hit of a LoCoMo question has 13 in the median.
HALF: Final = 12.0

#: What one word in common is worth at least, whatever it weighs: not less than the default threshold of a search, so
#: that in a small tenant, where every word is common, a hit by words alone is still a hit.
FLOOR: Final = 0.1


class Scored(NamedTuple):
    """A memory with its score in [0, 1]."""

    memory_id: UUID
    score: float
    signals: Signals


def keyword(bm25: float) -> float:
    """Return BM25 on the scale of a cosine: 0 without a word in common, else from 0.1 towards 1."""
    return FLOOR + (1 - FLOOR) * bm25 / (bm25 + HALF) if bm25 > 0 else 0.0


def fuse(candidates: Iterable[Candidate]) -> list[Scored]:
    """Return the candidates, the best first, scored as 1 - (1 - semantic) * (1 - keyword).

    Either signal can carry a hit alone and the other only adds: the score is never below the cosine nor below the
    keyword score, and grows with both. It depends on the candidate alone and not on what else was found, so a threshold
    means the same in every request. Equal scores are ordered by id, so that pages do not overlap.
    """
    scored = [_score(candidate) for candidate in candidates]
    return sorted(scored, key=lambda one: (-one.score, one.memory_id))


def _score(candidate: Candidate) -> Scored:
    meaning, words = min(max(candidate.semantic, 0.0), 1.0), keyword(candidate.bm25)
    # Added up this way a signal that stands alone is kept to the last digit.
    score = min(meaning + words * (1 - meaning), 1.0) if meaning else words
    return Scored(candidate.memory_id, score, Signals(candidate.semantic, words, candidate.bm25, score))
