"""Moments as the engines store them."""

from __future__ import annotations

from datetime import UTC, datetime


def moment(value: datetime) -> str:
    """Return a moment as the engines store it, exact to the microsecond."""
    return value.astimezone(UTC).isoformat(timespec="microseconds")
