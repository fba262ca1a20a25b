"""Checks of the single values in a filter: each takes what came over the wire and gives what a condition compares with.

Every check raises `InvalidInput` with the place and what is allowed there, never with the value.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final
from uuid import UUID

from service.errors import InvalidInput
from service.filters.times import read_time, read_unix

_INT64: Final = range(-(2**63), 2**63)
_UUID: Final = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class FilterLimits:
    """What a filter may grow to: `values` in one list, `all_values` in all its lists. Lengths are in code points."""

    depth: int = 10
    conditions: int = 200
    values: int = 1000
    all_values: int = 2000
    string: int = 1000
    id: int = 255


def check_characters(text: str, where: str) -> str:
    """Return a text that every store can hold: without null characters and without half a surrogate pair."""
    if "\x00" in text:
        raise InvalidInput(f"{where}: null characters are not allowed")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidInput(f"{where}: the text is not valid Unicode (half a surrogate pair)") from None
    return text


def string(value: object, where: str, limits: FilterLimits) -> str:
    """Return a string as it is."""
    return _string(value, where, limits.string)


def identifier(value: object, where: str, limits: FilterLimits) -> str:
    """Return an id of a user, agent, app, run or actor as it is."""
    return _string(value, where, limits.id)


def uuid_or_none(value: object, where: str, limits: FilterLimits) -> UUID | None:
    """Return a memory id, or None for a string that is none: such an id matches nothing."""
    text = _string(value, where, limits.string)
    return UUID(text) if _UUID.fullmatch(text) else None


def scalar(value: object, where: str, limits: FilterLimits) -> str | int | float | bool:
    """Return a metadata value: a string, a finite number or a boolean."""
    if isinstance(value, bool):
        return value
    return number_or_string(value, where, limits, allowed="a string, a number or a boolean")


def number_or_string(
    value: object, where: str, limits: FilterLimits, *, allowed: str = "a number or a string"
) -> str | int | float:
    """Return a value that has an order."""
    if isinstance(value, str):
        return string(value, where, limits)
    if isinstance(value, int) and not isinstance(value, bool):
        if value not in _INT64:
            raise InvalidInput(f"{where}: whole numbers must fit in 64 bits")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidInput(f"{where}: numbers must be finite")
        return value
    raise InvalidInput(f"{where}: must be {allowed}")


def time(value: object, where: str, limits: FilterLimits) -> datetime | date:
    """Return a moment in UTC, or a day when that is what was given."""
    found: datetime | date | None = None
    if isinstance(value, str):
        found = read_time(string(value, where, limits))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        found = read_unix(value)
    if found is None:
        raise InvalidInput(
            f"{where}: must be an ISO 8601 date (2024-05-31), a date with time (2024-05-31T10:00:00Z) or a number of "
            "seconds since 1970"
        )
    return found


def day(value: object, where: str, limits: FilterLimits) -> date:
    """Return a day; of a moment, its day in UTC."""
    found = time(value, where, limits)
    return found.date() if isinstance(found, datetime) else found


def _string(value: object, where: str, longest: int) -> str:
    if not isinstance(value, str):
        raise InvalidInput(f"{where}: must be a string")
    if len(value) > longest:
        raise InvalidInput(f"{where}: must have at most {longest} characters")
    return check_characters(value, where)
