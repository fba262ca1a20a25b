"""Finds the times that an English text names, with the side of each that is meant."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from service.memories.time_words import COUNTED, OF_EDGE, WHOLE, Named, of_a_span

_MONTH: Final = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)"
)
_DAY: Final = r"\d{1,2}(?:st|nd|rd|th)?"
_UNIT: Final = r"(?:day|week|month|year)s?"
_NUMBER: Final = r"(?:\d{1,3}|an?|one|two|three|four|five|six|seven|eight|nine|ten)"
#: What is not before such a number: "twenty-one days ago", "half a year ago".
_NO_PART: Final = (
    r"(?<!twenty\s)(?<!thirty\s)(?<!forty\s)(?<!fifty\s)(?<!sixty\s)(?<!seventy\s)(?<!eighty\s)(?<!ninety\s)"
    r"(?<!hundred\s)(?<!hundred\sand\s)(?<!half\s)(?<!quarter\sof\s)"
)
#: What stands before the year of a month: "in May of 2024", "May 3, 2025", "in March of the year 2025".
_OF_YEAR: Final = r",?\s+(?:of\s+)?(?:the\s+year\s+)?"
#: What makes somebody's name of a month before it: "before June moved out".
_DID: Final = (
    r"(?:\w+ed|was|had|went|left|got|came|told|said|gave|took|became|began|started|met|bought|found|made|quit)\b"
)
#: What a number behind a month counts, so that it is no day.
_OF_ANYTHING: Final = rf"(?:{COUNTED}|(?:{_UNIT}|hours?|minutes?|times)\b)"
_TIME: Final = re.compile(
    rf"""\b(?:(?P<side>before|prior\s+to|earlier\s+than|until|till|up\s+to|after|(?<!no\s)(?<!not\s)later\s+than|since
        |in|on|during|of|by|from|between|to|through|and)\s+)?
    (?:(?:the\s+)?(?P<edge>end|start|beginning)\s+of\s+)?(?:the\s+(?:(?:year|month\s+of)\s+)?)?(?P<time>
      \d{{4}}-\d{{2}}-\d{{2}}
    | {_DAY}\s+(?:of\s+)?{_MONTH}(?:{_OF_YEAR}\d{{4}})?
    | {_MONTH}\s+{_DAY}(?!\d)(?!\s*{_OF_ANYTHING})(?:{_OF_YEAR}\d{{4}})?
    | {_MONTH}{_OF_YEAR}\d{{4}}
    | {WHOLE}{_NO_PART}{_NUMBER}\s+{_UNIT}\s+ago
    | (?:the\s+day\s+before\s+)?yesterday | today
    | (?:last|this|past)\s+(?:week|month|year) | last\s+(?:mon|tues|wednes|thurs|fri|satur|sun)day
    | the\s+(?:last|past)\s+(?P<recent>{_NUMBER}\s+{_UNIT})(?!\s+of\b)
    | (?P<bare>{_MONTH}(?!\s+{_DID}) | \d{{4}}(?!\s*{COUNTED}))
    )\b(?P<on>\s+(?:onwards?|forward|on(?=\s*(?:[,;:?!.]|$)))\b)?""",
    re.IGNORECASE | re.VERBOSE,
)
#: The first day of a span whose last one has the month: "from 3 to 5 May", "between the 3rd and 5th of May", "3-5 May".
_FIRST_DAY: Final = re.compile(
    r"(?<![\d.,/-])(?:\bbetween\s+)?(?:\bthe\s+)?\b(?P<day>\d{1,2})(?:st|nd|rd|th)?\s*(?P<dash>[-\u2013\u2014]?)\s*\Z",
    re.IGNORECASE,
)
#: The last day of a span whose first one has the month: "May 3-5, 2025", "from May 3 to 5".
_LAST_DAY: Final = re.compile(
    rf"\s*(?:[-\u2013\u2014]|\b(?:to|until|till|through|(?P<also>and))\b)\s*(?:the\s+)?"
    rf"(?P<day>{_DAY}|\d{{4}})\b(?![.,/:-]?\d)(?!\s*(?:{_MONTH}\b|{_OF_ANYTHING}))(?P<year>,?\s+\d{{4}})?",
    re.IGNORECASE,
)
#: A month or a year alone counts behind a word that says so, for "may" and "march" are other words too. Behind those
#: of the second line it counts as an end of a span only: "from June" may be a person, "to 2000" a number.
_TELLING: Final = frozenset(
    {"before", "prior to", "earlier than", "until", "till", "after", "later than", "since", "in", "during"}
)
_ENDS: Final = {"from": "from", "between": "between", "to": "through", "through": "through", "and": "and"}
_SIDES: Final = {
    **{"before": "before", "prior to": "before", "earlier than": "before", "until": "until", "till": "until"},
    **{"up to": "up to", "since": "since", "after": "after", "later than": "after"},
    **_ENDS,
}
_OPEN: Final = frozenset({"before", "until", "up to", "since", "after"})
#: Words of their own in small letters: "30 may come", "how many of 30 may", "march 10 miles".
_NO_DAY: Final = frozenset({"", "of", "and"})
_OTHER_WORD: Final = re.compile(r"\d{1,2}\s+(?:may|march)|(?:may|march)\s+\d{1,2}")
_BEFORE_YEAR: Final = re.compile(rf"{_OF_YEAR}(?=\d{{4}}\Z)", re.IGNORECASE)
_WITHOUT_YEAR: Final = re.compile(rf"(?:{_DAY}\s+(?:of\s+)?)?{_MONTH}(?:\s+{_DAY})?", re.IGNORECASE)


def english_times(text: str) -> Iterator[Named]:
    """Yield the times that a text names, one behind the other.

    Their sides are "before", "until", "since", "after", those of an end of a span ("from", "between", "through",
    "and"), and "up to", which means the time itself too.
    """
    named = 0
    for match in _TIME.finditer(text):
        said, time = (match["side"] or "").lower(), _BEFORE_YEAR.sub(" ", match["time"])
        if match["bare"] and said not in _TELLING and said not in _ENDS:
            continue
        if said in _NO_DAY and _OTHER_WORD.fullmatch(time):
            continue
        side = _SIDES.get(said, "")
        side = "since" if side == "from" and match["on"] else side
        if match["recent"]:
            side, time = side if side in ("before", "until") else "since", f"{match['recent']} ago"
        one = Named(match.start(), match.end(), OF_EDGE.get((side, (match["edge"] or "").lower()), side), time)
        first, last = _first_day(one, text, named), _last_day(one, text)
        if first is not None:
            yield first
        yield one if last is None else one._replace(side="between")
        if last is not None:
            yield last
        named = one.end if last is None else last.end


def _first_day(last: Named, text: str, after: int) -> Named | None:
    """Return the first day of a span from a number alone that stands before its last day, if one does."""
    found = _FIRST_DAY.search(text, after, last.start)
    if found is None or not (found["dash"] or last.side in ("through", "until", "and")):
        return None
    if last.side == "and" and not found[0].lower().startswith("between"):
        return None
    time = of_a_span(found["day"], last.time)
    return None if time is None else Named(found.start(), last.start, "between", time)


def _last_day(first: Named, text: str) -> Named | None:
    """Return the last day of a span from a number alone that stands behind its first day, if one does."""
    found = _LAST_DAY.match(text, first.end)
    if found is None or first.side in _OPEN or (found["also"] and first.side != "between"):
        return None
    time = of_a_span(found["day"], first.time)
    return None if time is None else Named(first.end, found.end(), "through", f"{time}{found['year'] or ''}")


def lacks_year(named: Named) -> bool:
    """Whether a time is a month, or a day of one, without its year."""
    return _WITHOUT_YEAR.fullmatch(named.time) is not None


def is_loose(named: Named) -> bool:
    """Whether a time is none where it is not one of the two ends of a span: a month or a year alone."""
    return named.side in _ENDS.values() and re.fullmatch(rf"\d{{4}}|{_MONTH}", named.time, re.IGNORECASE) is not None
