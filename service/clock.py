"""The only source of time and of new ids, so that both can be moved in tests and audited in one place."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from uuid import UUID, uuid4

import uuid_utils.compat


def now() -> datetime:
    """Return the present moment, timezone-aware, in UTC."""
    return datetime.now(UTC)


def today() -> date:
    """Return today's date in UTC, the calendar that expiry dates are counted in."""
    return now().date()


def new_id() -> UUID:
    """Return a new time-ordered id (UUIDv7, RFC 9562), so that inserts stay at one end of an index."""
    return uuid_utils.compat.uuid7()


def new_random_id() -> UUID:
    """Return a new id without a time in it (UUIDv4), for what must not tell when it was made."""
    return uuid4()


#: Seconds of a clock that never goes back; for durations and time limits only.
monotonic: Callable[[], float] = time.monotonic
