"""Says which days a weekday or the last weekend is, as counted from a day or in a week."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Final

WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
WEEKEND: Final = "weekend"
THIS_WEEKEND: Final = "this weekend"


def days_named(name: str, today: date, *, coming: bool) -> tuple[date, int]:
    """Return the first day and the number of days of a weekday, the last one or the coming one, or of a weekend.

    The day itself is neither: on a Thursday the last one was a week ago, and on a Sunday the last weekend is. "This
    weekend" is the one of the day, else the last one or the coming one.

    Raises:
        OverflowError: where the calendar has no such day.
    """
    if name == THIS_WEEKEND:
        saturday = in_week("saturday", today - timedelta(days=today.weekday()))
        return saturday if coming or today >= saturday else saturday - timedelta(days=7), 2
    if name == WEEKEND:
        return _last(today, "sunday") - timedelta(days=1), 2
    return (_next if coming else _last)(today, name), 1


def in_week(name: str, monday: date) -> date:
    """Return the day of a weekday in the week that begins with a Monday."""
    return monday + timedelta(days=WEEKDAYS.index(name))


def _last(today: date, name: str) -> date:
    return today - timedelta(days=(today.weekday() - WEEKDAYS.index(name) - 1) % 7 + 1)


def _next(today: date, name: str) -> date:
    return today + timedelta(days=(WEEKDAYS.index(name) - today.weekday() - 1) % 7 + 1)
