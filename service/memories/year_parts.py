"""Says which days a part of the calendar is that has no date: a season, a quarter, a holiday, a week of a month."""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import Final, TypeAlias

from service.memories.weekdays import WEEKDAYS, WEEKEND, days_named

SEASONS: Final = ("spring", "summer", "autumn", "winter")
QUARTER: Final = "quarter"
Days: TypeAlias = tuple[date, int]

_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_YEAR_MONTHS: Final = 12
#: The first month and how many there are. The seasons are those of the north, and a winter is of the year it begins in.
_OF_YEARS: Final = {
    **{"spring": (3, 3), "summer": (6, 3), "autumn": (9, 3), "winter": (12, 3)},
    **{f"q{number}": (3 * number - 2, 3) for number in (1, 2, 3, 4)},
    **{"first half": (1, 6), "second half": (7, 6), "early": (1, 4), "mid": (5, 4), "late": (9, 4)},
}
#: The month, the first day and how many there are.
_HOLIDAYS: Final = {
    **{"christmas": (12, 24, 3), "christmas eve": (12, 24, 1), "christmas day": (12, 25, 1), "boxing day": (12, 26, 1)},
    **{"christmas holidays": (12, 24, 9), "new year's eve": (12, 31, 1), "new year's day": (1, 1, 1)},
    **{"valentine's day": (2, 14, 1), "halloween": (10, 31, 1)},
}
#: Days of a month, the last of which may be its end. "Week-0" is the last one.
_OF_MONTHS: Final = {
    "first half": (1, 15),
    "second half": (16, 31),
    "early": (1, 10),
    "mid": (11, 20),
    "late": (21, 31),
}
_WEEK: Final = 7
_ALONE: Final = "|".join((*SEASONS, "q[1-4]", *sorted(_HOLIDAYS, reverse=True)))
_PART: Final = "first half|second half|early|mid|late|week-[0-4]"
_YEARLY: Final = re.compile(
    rf"(?:(?P<part>{_PART}) (?P<month>{'|'.join(_MONTHS)})[a-z]*|(?P<named>{_ALONE}))(?: (?P<year>\d{{4}}))?"
)
_OF_YEAR: Final = re.compile(rf"(?P<part>{_PART}) (?P<year>\d{{4}})")
_AGO: Final = re.compile(rf"(?P<count>\d+) (?P<kind>{'|'.join((*WEEKDAYS, WEEKEND, QUARTER))}|{_ALONE}) ago")
_NEXT: Final = re.compile(rf"next (?P<kind>{QUARTER}|{_ALONE})")
_DECADE: Final = re.compile(r"(?P<first>\d{3}0)s")


def is_of_each_year(name: str) -> bool:
    """Whether a name is of a part that each year has, and says not of which: "summer", "early may"."""
    found = _YEARLY.fullmatch(name.lower())
    return found is not None and found["year"] is None


def is_named(name: str) -> bool:
    """Whether a name is a season, a quarter or a holiday without its year, which may be a person or a thing too."""
    return re.fullmatch(_ALONE, name.lower()) is not None


def part_days(name: str, today: date, *, coming: bool) -> Days | None:
    """Return the first day and the number of days of a part, by its name in small letters; None for another name.

    Without a year it is the last one that has begun, or with `coming` the first that is not over. "2 summer ago" is the
    last but one that is over, and "0 quarter ago" the one of the day.

    Raises:
        ValueError, OverflowError: where the calendar has no such day.
    """
    if found := _YEARLY.fullmatch(name):
        part, month = found["named"] or found["part"], found["month"]
        if found["year"]:
            return _in_year(part, int(found["year"]), month)
        years = range(today.year - 1, today.year + 2)
        if coming:
            return next(days for days in (_in_year(part, year, month) for year in years) if _is_ahead(days, today))
        return next(days for days in (_in_year(part, year, month) for year in reversed(years)) if days[0] <= today)
    if found := _OF_YEAR.fullmatch(name):
        return _in_year(found["part"], int(found["year"]))
    if found := _DECADE.fullmatch(name):
        first = date(int(found["first"]), 1, 1)
        return first, (date(first.year + 10, 1, 1) - first).days
    if found := _AGO.fullmatch(name):
        return _ago(found["kind"], int(found["count"]), today)
    if found := _NEXT.fullmatch(name):
        return _next(found["kind"], today)
    return None


def _in_year(part: str, year: int, month: str | None = None) -> Days:
    if part in _HOLIDAYS:
        of_year, day, count = _HOLIDAYS[part]
        return date(year, of_year, day), count
    if part in _OF_YEARS and month is None:
        return _months(year, *_OF_YEARS[part])
    begin, count = _months(year, 1, _YEAR_MONTHS) if month is None else _months(year, _MONTHS.index(month) + 1, 1)
    if part.startswith("week-"):
        number = int(part.removeprefix("week-"))
        return begin + timedelta(days=_WEEK * (number - 1) if number else count - _WEEK), _WEEK
    first, last = _OF_MONTHS[part]
    return begin + timedelta(days=first - 1), min(last, count) - first + 1


def _months(year: int, month: int, count: int) -> Days:
    begin, behind = date(year, month, 1), year * _YEAR_MONTHS + month - 1 + count
    return begin, (date(behind // _YEAR_MONTHS, behind % _YEAR_MONTHS + 1, 1) - begin).days


def _is_ahead(days: Days, today: date) -> bool:
    return days[0] + timedelta(days=days[1]) > today


def _ago(kind: str, count: int, today: date) -> Days:
    if kind == QUARTER:
        quarter = today.year * 4 + (today.month - 1) // 3 - count
        return _in_year(f"q{quarter % 4 + 1}", quarter // 4)
    if kind in (*WEEKDAYS, WEEKEND):
        first, days = days_named(kind, today, coming=False)
        return first - timedelta(days=_WEEK * (count - 1)), days
    years = range(today.year, today.year - 3, -1)
    over = next(year for year in years if not _is_ahead(_in_year(kind, year), today))
    return _in_year(kind, over - count + 1)


def _next(kind: str, today: date) -> Days:
    if kind == QUARTER:
        return _ago(kind, -1, today)
    years = range(today.year, today.year + 2)
    return next(days for days in (_in_year(kind, year) for year in years) if days[0] > today)
