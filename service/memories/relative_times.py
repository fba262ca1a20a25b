"""Leaves out of a question the words for a time that mean another one in a memory: "last week", told long ago."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable
from itertools import accumulate
from typing import Final

from service.memories.time_words import Named, folded
from service.memories.weekdays import THIS_WEEKEND, WEEKDAYS, WEEKEND

#: Of the past or the present: of what is to come is told before, with the same words. "Last year" means the same for
#: a year, and what was told in it is asked for in it too.
_RELATIVE: Final = re.compile(
    rf"{'|'.join(WEEKDAYS)}|{WEEKEND}|{THIS_WEEKEND}|(?:the day before )?yesterday|today|(?:last|this) (?:week|month)"
    rf"|\w+ (?:day|week|weekend|month|{'|'.join(WEEKDAYS)})s? ago"
)
#: "Last week's meeting".
_OF_IT: Final = re.compile(r"\A['’]s\b")
_WORD: Final = re.compile(r"\w")


def without_relative(question: str, text: str, named: Iterable[Named]) -> str:
    """Return a question without its relative times; empty where there is none of them, or nothing else.

    `text` is the question as the times were named in it: as it is, or `folded`.
    """
    relative = [one for one in named if not one.coming and _RELATIVE.fullmatch(one.time.lower())]
    if not relative:
        return ""
    # Where each character ends in the text.
    ends = list(accumulate(len(folded(character)) for character in question)) if text != question else None
    if ends is not None and ends[-1] != len(text):
        return ""
    for one in sorted(relative, reverse=True):
        start, end = (
            (one.start, one.end) if ends is None else (bisect_left(ends, at + 1) for at in (one.start, one.end))
        )
        question = f"{question[:start]} {_OF_IT.sub('', question[end:])}"
    rest = " ".join(question.split())
    return rest if _WORD.search(rest) else ""
