"""Chooses which of the found memories a context is made of: what matters, told once, from more than one source.

Each choice takes the hit that is worth most beside those that are chosen. All shares are of the best hit's rank.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from service.records import Hit

#: What a memory that only asks something is worth less. Measured on LoCoMo: what answers is rarely a question.
_ASKS: Final = 0.06
#: What one is worth less that shares all its words with one that is chosen.
_ALIKE: Final = 0.05
#: What the newest is worth more, and after how long half of that is left.
_RECENT: Final = 0.02
_HALF_AFTER: Final = timedelta(days=30)
#: What one is worth less when all that is chosen came through its source, where hits of several sources were found.
_SOURCE: Final = 0.05
_QUESTION_MARKS: Final = ("?", "？", "؟")


def chosen(hits: Sequence[Hit], words: Sequence[frozenset[str]], sources: Sequence[str]) -> Iterator[Hit]:
    """Yield all hits in the order in which a context should take them; `words` and `sources` are those of the hits."""
    if not hits:
        return
    ranks = [hit.signals.rank or hit.score for hit in hits]
    best, newest = max(ranks) or 1.0, max(hit.memory.created_at for hit in hits)
    worth = {
        number: rank / best - _ASKS * _asks(hit) + _RECENT * _recency(hit.memory.created_at, newest)
        for number, (hit, rank) in enumerate(zip(hits, ranks, strict=True))
    }
    several = len(set(sources)) > 1
    alike = dict.fromkeys(worth, 0.0)
    taken: Counter[str] = Counter()
    while worth:

        def value(number: int) -> float:
            share = taken[sources[number]] / taken.total() if several and taken else 0.0
            return worth[number] - _ALIKE * alike[number] - _SOURCE * share

        # Equal ones in the order in which they were found.
        number = max(worth, key=lambda one: (value(one), -one))
        del worth[number]
        yield hits[number]
        taken[sources[number]] += 1
        for other in worth:
            alike[other] = max(alike[other], _shared(words[number], words[other]))


def _asks(hit: Hit) -> bool:
    return hit.memory.text.rstrip().endswith(_QUESTION_MARKS)


def _recency(moment: datetime, newest: datetime) -> float:
    return float(0.5 ** ((newest - moment) / _HALF_AFTER))


def _shared(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other) if one or other else 0.0
