"""What the time of a memory adds to its order: the time a question names, the present, and a little for the new."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.filters.ast import All, Any_, Condition, Field, Node, Op
from service.memories.asked_times import FIRST, LAST, AskedTime, Span

Floats = NDArray[np.float64]

#: What a memory of the named time gets, where the best cosine counts 1: what answers goes before what is of the time
#: alone, and that before what is a little nearer.
_NAMED: Final = 0.6
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


def within(spans: Iterable[Span]) -> Node:
    """Return the filter that a memory is of one of the times."""
    return Any_(tuple(All(tuple(_bounds(span))) for span in spans))


def boosts(created: Floats, asked: AskedTime, until: datetime) -> Floats:
    """Return what each memory gets for its time, by when it was (seconds since 1970, NaN for unknown: nothing).

    What is of after `until` counts as the newest.
    """
    age = np.maximum(until.timestamp() - created, 0.0)
    boost: Floats = _NEW * 0.5 ** (age / _NEW_HALF.total_seconds())
    if asked.present:
        boost += _PRESENT * 0.5 ** (age / _PRESENT_HALF.total_seconds())
    named = of_times(created, asked.spans)
    boost[named] += _NAMED
    if asked.anchored is not None:
        boost[_within(created, asked.anchored) & ~named] += _ANCHORED
    return np.nan_to_num(boost, copy=False)


def of_times(created: Floats, spans: Iterable[Span]) -> NDArray[np.bool_]:
    """Return of each memory, by when it was, whether it is of one of the times."""
    found = np.zeros(len(created), dtype=bool)
    for span in spans:
        found |= _within(created, span)
    return found


def _within(created: Floats, span: tuple[datetime, datetime]) -> NDArray[np.bool_]:
    first, end = span
    return (first.timestamp() <= created) & (created < end.timestamp())


def _bounds(span: Span) -> Iterator[Condition]:
    first, end = span
    if first > FIRST:
        yield Condition(Field.CREATED, Op.GTE, first)
    if end < LAST:
        yield Condition(Field.CREATED, Op.LT, end)
