"""Spans of time as ISO 8601 writes them (P30D, P6Y, PT12H): read, checked, and added to a moment by the calendar."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import isodate

from service.errors import InvalidInput

_LONGEST_CHARS: Final = 32
_LAST: Final = datetime.max.replace(tzinfo=UTC)
_ANCHOR: Final = datetime(2000, 1, 1, tzinfo=UTC)
_SHORTEST_YEAR: Final = 365
_SHORTEST_MONTH: Final = 28
_LONGEST: Final = timedelta(days=366 * 200)


@dataclass(frozen=True, slots=True)
class Span:
    """A span of time. Years and months are the calendar's: a month after January 31 is the last day of February."""

    text: str

    @property
    def shortest(self) -> timedelta:
        """How long it is at least, whatever the calendar."""
        found = isodate.parse_duration(self.text)
        by_calendar = timedelta()
        if not isinstance(found, timedelta):
            days = _SHORTEST_YEAR * float(found.years) + _SHORTEST_MONTH * float(found.months)
            by_calendar, found = timedelta(days=days), found.tdelta
        exact: timedelta = found
        return by_calendar + exact

    def after(self, moment: datetime) -> datetime:
        """Return the moment that lies this span after another; the end of the calendar for what lies behind it."""
        try:
            found: datetime = moment + isodate.parse_duration(self.text)
        except (OverflowError, ValueError):
            return _LAST
        return found


def read_span(text: str, where: str) -> Span:
    """Return a span.

    Raises:
        InvalidInput: for what is no ISO 8601 duration, is negative, or longer than 200 years.
    """
    try:
        if len(text) > _LONGEST_CHARS or text.endswith("T"):
            raise ValueError
        found: datetime = _ANCHOR + isodate.parse_duration(text)
    except (ValueError, OverflowError, ArithmeticError):
        raise InvalidInput(f"{where}: must be an ISO 8601 duration such as P30D, P6Y or PT12H") from None
    if not _ANCHOR <= found <= _ANCHOR + _LONGEST:
        raise InvalidInput(f"{where}: must be from zero to 200 years")
    return Span(text)
