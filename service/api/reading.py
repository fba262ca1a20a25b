"""Reads what every dialect's requests hold: ids in a path, moments, days. Pure."""

from __future__ import annotations

from datetime import date, datetime
from typing import Final
from uuid import UUID

from service import clock
from service.errors import InvalidInput, MalformedId
from service.filters.parse import KEYS
from service.filters.times import read_time, read_unix

Moment = int | float | str

SUBJECTS: Final = ("user_id", "agent_id", "app_id", "run_id")
#: What narrows a search or a list.
NARROWING: Final = frozenset({*KEYS, *SUBJECTS, "filters", "identity", "start_date", "end_date"})


def uuid_in_path(text: str, thing: str) -> UUID:
    """Return the id in a path; what is no id names nothing.

    Raises:
        MalformedId: for anything but the usual spelling of a UUID.
    """
    try:
        found = UUID(text)
    except ValueError:
        found = None
    if found is None or str(found) != text.lower():
        raise MalformedId(f"there is no such {thing}")
    return found


def moment_of(value: Moment, where: str) -> datetime:
    """Return a moment that is given as seconds or ISO 8601; a day is its first moment.

    Raises:
        InvalidInput: for anything else.
    """
    read = read_unix(value) if not isinstance(value, str) else read_time(value)
    if read is None:
        raise InvalidInput(f"{where}: must be seconds since 1970 or an ISO 8601 date or moment")
    if not isinstance(read, datetime):
        return datetime(read.year, read.month, read.day, tzinfo=clock.now().tzinfo)
    return read


def expiry_of(value: str) -> date:
    """Return the last day on which something is to be visible.

    Raises:
        InvalidInput: for what is no day, and for one that is over.
    """
    read = read_time(value)
    if read is None:
        raise InvalidInput("expiration_date: must be a day, YYYY-MM-DD")
    day = read.date() if isinstance(read, datetime) else read
    if day < clock.today():
        raise InvalidInput("expiration_date: is in the past; delete the memory instead")
    return day
