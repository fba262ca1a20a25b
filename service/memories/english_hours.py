"""Finds the hours and minutes that an English text names, as the days they are of: a question is asked on a day."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from service.memories.english_words import NO_PART, NUMBER, counted, said
from service.memories.time_words import WHOLE, Named

_HOURS_OF_A_DAY: Final = 24
#: "The last minute" is a time of anything, and so are "the last 10 minutes of the match".
_HOURS: Final = re.compile(
    rf"""\b(?:(?P<side>since|in|within|over|during|of|from)\s+)?(?:
      the\s+(?:last|past)\s+(?:(?P<within>{NUMBER})\s+(?:(?P<hours>hours?)|minutes?)|hour)(?!\s+(?:of|before)\b)
    | {WHOLE}{NO_PART}(?P<count>{NUMBER})\s+(?:(?P<ago>hours?)|minutes?)\s+ago | half\s+an\s+hour\s+ago
    )\b""",
    re.IGNORECASE | re.VERBOSE,
)


def english_hours(text: str) -> Iterator[Named]:
    """Yield the times that a text counts in hours or minutes; the last 24 hours are those since yesterday."""
    for match in _HOURS.finditer(text):
        lasts = match["count"] is None and "half" not in match[0].lower()
        hours = counted(match["within"] or match["count"]) if match["hours"] or match["ago"] else 0
        days = -(-hours // _HOURS_OF_A_DAY) if lasts and hours > 1 else hours // _HOURS_OF_A_DAY
        side = "since" if lasts or said(match) == "since" else ""
        yield Named(match.start(), match.end(), side, f"{days} days ago" if days else "today")
