"""What the time of a memory adds to its order: the time a question names, the present, and a little for the new."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from service.index.interface import Candidate
from service.memories.asked_times import AskedTime

#: What a memory of the named time gets, where the best cosine counts 1: enough to go before what is as near, not more.
_NAMED: Final = 0.4
#: What one of the side of a remembered event gets: less, for when it was told is not when it was.
_ANCHORED: Final = 0.2
#: What the newest gets when the question asks for the present, and after how long half of that is left.
_PRESENT: Final = 0.4
_PRESENT_HALF: Final = timedelta(days=30)
#: What the newest gets in every search, and after how long half of that is left.
_NEW: Final = 0.02
_NEW_HALF: Final = timedelta(days=90)


def day_end(day: date) -> datetime:
    """Return the last moment of a day."""
    return datetime.combine(day, time.max, tzinfo=UTC)


def boosts(candidates: Iterable[Candidate], asked: AskedTime, until: datetime) -> list[float]:
    """Return what each candidate gets for its time, in their order; what is of after `until` counts as the newest."""
    return [0.0 if one.created_at is None else _boost(one.created_at, asked, until) for one in candidates]


def _boost(moment: datetime, asked: AskedTime, until: datetime) -> float:
    age = max(until - moment, timedelta())
    boost: float = _NEW * 0.5 ** (age / _NEW_HALF)
    if asked.present:
        boost += _PRESENT * 0.5 ** (age / _PRESENT_HALF)
    if any(first <= moment < end for first, end in asked.spans):
        boost += _NAMED
    elif asked.anchored is not None and asked.anchored[0] <= moment < asked.anchored[1]:
        boost += _ANCHORED
    return boost
