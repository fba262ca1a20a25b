"""ISO 8601 days and moments, read the same way for the filter and for the rows it is compared with."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Final

_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_MOMENT: Final = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}(:\d{2}([.,]\d{1,9})?)? ?([Zz]|[+-]\d{2}(:?\d{2})?)?", re.ASCII
)


def read_time(text: str) -> datetime | date | None:
    """Return a moment in UTC, a day, or None when the text is neither.

    A day is `YYYY-MM-DD`. A moment has hours and minutes at least; without an offset it is UTC. Digits below a
    microsecond are dropped.
    """
    try:
        if _DAY.fullmatch(text):
            return date.fromisoformat(text)
        if _MOMENT.fullmatch(text):
            return in_utc(datetime.fromisoformat(text.upper().replace(" ", "T", 1).replace(" ", "")))
    except (ValueError, OverflowError):
        return None
    return None


def read_unix(seconds: float) -> datetime | None:
    """Return the moment that is this many seconds after 1970, or None when it is outside the calendar."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def in_utc(moment: datetime) -> datetime:
    """Return the moment in UTC; one without a time zone is taken to be UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def day_start(day: date) -> datetime:
    """Return the first moment of a day in UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
