"""Finds the times that an English text names, with the side of each that is meant."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Final

from service.memories.english_tenses import Tense, tense_at
from service.memories.english_words import (
    ALONE,
    ENDS,
    MONTH,
    NAMED_SO,
    NO_PART,
    NUMBER,
    OF_ANYTHING,
    OF_SOMEBODY,
    OF_YEAR,
    OPEN,
    OPEN_WORDS,
    ORDINAL,
    SIDES,
    THE,
    UNIT,
    WEEKDAY,
    behind,
    counted,
    in_digits,
    said,
    tells_a_habit,
    tense_of,
)
from service.memories.time_words import OF_EDGE, WHOLE, Named, of_a_span
from service.memories.weekdays import WEEKDAYS, WEEKEND
from service.memories.year_parts import is_named, is_of_each_year

_DAY: Final = r"\d{1,2}(?:st|nd|rd|th)?"
_PART_OF_DAY: Final = r"(?:\s+(?:morning|midday|noon|lunchtime|afternoon|evening|night)\b)"
_WEEKS: Final = {"first": 1, "second": 2, "third": 3, "fourth": 4, "1st": 1, "2nd": 2, "3rd": 3, "4th": 4}
#: Which part of a month or of a year is meant.
_EDGE: Final = (
    r"(?:(?:the\s+(?:very\s+)?)?(?P<edge>(?:end|start|beginning|middle|(?:first|second|latter)\s+half)\s+of"
    rf"|(?:{'|'.join(_WEEKS)}|(?<=the\s)last)\s+week\s+(?:of|in)|(?<!\bthe\s)(?:early|late)(?:\s+in)?"
    r"|mid(?=[\s-]))[\s-]+)"
)
#: "May the 4th" is a day, and "may the 4th of them come?" is none.
_THE_DAY: Final = rf"the\s+\d{{1,2}}(?:st|nd|rd|th)(?:{OF_YEAR}\d{{4}}|{ALONE}(?!\s+of\b))"
_TIME: Final = re.compile(
    rf"""\b(?:(?P<side>before|prior\s+to|earlier\s+than|until|till|up\s+to|after|(?<!no\s)(?<!not\s)later\s+than|since
        |in|on|during|of|by|from|between|to|through|and|(?<!no\s)(?<!not\s)(?:more|less)\s+than(?=\s+(?:{NUMBER}|half)\s)
        |(?:last|next)(?=\s+{MONTH}\b))\s+)?
    {_EDGE}?(?:the\s+(?:(?:year|month\s+of)\s+)?)?(?P<time>
      \d{{4}}-\d{{2}}-\d{{2}}
    | {_DAY}\s+(?:of\s+)?{MONTH}(?:{OF_YEAR}\d{{4}})?
    | {MONTH}\s+{_DAY}(?!\d)(?!\s*{OF_ANYTHING})(?:{OF_YEAR}\d{{4}})?
    | (?<=the\s)(?P<spelled>{ORDINAL})\s+of\s+{MONTH}{NAMED_SO}(?:{OF_YEAR}\d{{4}}|{ALONE})
    | {MONTH}\s+{_THE_DAY}
    | {MONTH}{OF_YEAR}\d{{4}}
    | {WHOLE}{NO_PART}(?:(?P<least>{NUMBER})\s*(?:\b(?:or|and|to)\b|[-\u2013\u2014])\s*)?
      (?P<most>{NUMBER})\s+(?P<unit>{UNIT})\s+ago(?:\s+today)?
    | (?<!\band\s)(?P<half>half\s+a|a\s+half)\s+year\s+ago
    | {WHOLE}{NO_PART}(?P<years>{NUMBER})\s+(?:and\s+a\s+half\s+years|years?\s+and\s+a\s+half)\s+ago
    | (?:the\s+day\s+before\s+)?yesterday | (?:the\s+day\s+after\s+)?tomorrow | today
    | (?:the\s+)?(?P<before_last>week|month|year)\s+before\s+last\b(?!\s+(?:{UNIT}|night|{WEEKDAY}|{MONTH})\b)
    | (?P<night>(?<!\bthe\s)last\s+night) | (?P<now>this\s+(?:morning|afternoon|evening)|tonight)
    | (?<!\bthe\s)(?:last|past|next)\s+(?:week|month|year)\b(?!\s+of\b) | this\s+(?:week|month|year)
    | (?<!\bthe\s)(?:last|past)\s+(?P<weekend>weekend)(?!\s+of\b)
    | (?:(?P<which>last|this\s+past|past|this|next)\s+)?(?P<weekday>{WEEKDAY}){_PART_OF_DAY}?
    | the\s+(?:last|past)\s+(?P<recent>{NUMBER}\s+{UNIT}|week|fortnight|month|year)(?!\s+of\b)
    | (?P<bare>{MONTH}{NAMED_SO} | \d{{4}}(?!\s*{OF_ANYTHING})(?![.:/]\d|,\d{{3}}))
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
    rf"(?P<day>{_DAY}|\d{{4}})\b(?![.,/:-]?\d)(?!\s*(?:{MONTH}\b|{OF_ANYTHING}))(?P<year>,?\s+\d{{4}})?",
    re.IGNORECASE,
)
#: "On Friday the 13th" is of another Friday.
_STANDS_ALONE: Final = re.compile(rf"(?!,?\s*(?:the\s+)?\d){ALONE}", re.IGNORECASE)
#: What joins the last of several times to those before it.
_JOINER: Final = r"(?:,\s*(?:and|or)\b|,|&|/|\b(?:and|or)\b)"
_GOES_ON: Final = re.compile(rf"\s*(?:{_JOINER}|[-\u2013\u2014])\s*", re.IGNORECASE)
#: Days whose month the last one has: "on the 3rd and 5th of May". Only behind "on" or "the", or counted as days are.
_DAYS_BEFORE: Final = re.compile(
    rf"(?<![\d.,/:-])(?:\b(?:on|the|on\s+the)\s+{_DAY}|\b\d{{1,2}}(?:st|nd|rd|th))"
    rf"(?:\s*{_JOINER}\s*(?:the\s+)?{_DAY}){{0,6}}\s*(?P<joiner>{_JOINER})?\s*\Z",
    re.IGNORECASE,
)
#: Days whose month the first one has: "on May 3, 5 and 7, 2025".
_DAYS_BEHIND: Final = re.compile(
    rf"(?P<days>(?:\s*{_JOINER}\s*(?:the\s+)?{_DAY}\b(?![.:]?\d)){{1,6}})(?P<year>,?\s+\d{{4}}\b)?(?!\s+of\b){ALONE}",
    re.IGNORECASE,
)
#: A month or a year alone counts behind a word that says so, for "may" and "march" are other words too. Behind those
#: of the second line it counts as an end of a span only: "from June" may be a person, "to 2000" a number.
_TELLING: Final = frozenset(
    {
        *("before", "prior to", "earlier than", "until", "till", "after", "later than", "since", "in", "during"),
        *("last", "next"),
    }
)
#: Words of their own in small letters: "30 may come", "how many of 30 may", "march 10 miles", "how early may she".
_NO_DAY: Final = frozenset({"", "of", "and"})
_OTHER_WORD: Final = re.compile(r"\d{1,2}\s+(?:may|march)|(?:may|march)\s+(?:\d{1,2}|the\s+\w+)")
_BEGINS: Final = re.compile(r"(?:\A|[.?!:;\"(])\s*\Z")
_HOW: Final = re.compile(r"\bhow\s+\Z", re.IGNORECASE)
_BEFORE_YEAR: Final = re.compile(rf"{OF_YEAR}(?=\d{{4}}\Z)", re.IGNORECASE)
_BEFORE_DAY: Final = re.compile(r"(?<=[a-z])\s+the(?=\s+\d)", re.IGNORECASE)
_WITHOUT_YEAR: Final = re.compile(rf"(?:{_DAY}\s+(?:of\s+)?)?{MONTH}(?:\s+{_DAY})?", re.IGNORECASE)
_MONTH_AND_DAY: Final = re.compile(rf"{MONTH}\s+{_DAY}", re.IGNORECASE)
_LONG: Final = re.compile(rf"\d{{4}}|{MONTH}", re.IGNORECASE)
_A_MONTH: Final = re.compile(rf"{MONTH}(?:\s+\d{{4}})?", re.IGNORECASE)
_A_YEAR: Final = re.compile(r"(?:19|20)\d\d")
_LAST_OF: Final = re.compile(rf"\s+(?:of|in\s+(?:{MONTH}|\d{{4}}))\b", re.IGNORECASE)
_COUNTED_ON: Final = re.compile(rf"\b{NUMBER}\s+(?:{UNIT}\s+(?:and\s+)?|(?:or|to)\s+)\Z", re.IGNORECASE)
_SIDED: Final = re.compile(r"\b(?:after|before|between|from|since|till|to|until)\s+\Z", re.IGNORECASE)
#: Behind these a weekday without a verb is one of the past: "notes from Monday". "Until Monday" leaves it open.
_OF_THE_PAST: Final = frozenset({"on", "from", "between", "after"})
#: The parts that words for an edge mean where the edge is not told by a side.
_PARTS: Final = {
    **{"start": "early", "beginning": "early", "middle": "mid", "end": "late"},
    "latter half": "second half",
}
#: A text in small letters without any of these names no time, and is not looked through.
_HINT: Final = re.compile(
    r"\d|\b(?:jan|feb|mar|apr|may|ju[nl]|aug|sep|oct|nov|dec|mon|tue|wed|thu|fri|sat|sun|ago|last|past|this|next"
    r"|today|tomorrow|tonight|yesterday)"
)
#: Matches that may be times.
_MOST: Final = 64
#: Before a weekday without "on" these make it another thing: "every Friday", "Black Friday", "who is called Friday".
_NO_WEEKDAY: Final = re.compile(
    r"(?:['’]s|\b(?:a|about|an|another|any|ash|be|black|called|cyber|easter|every|each|fat|first|for|giving|good|her|his"
    r"|holy|is|its|like|most|my|named|next|no|of|one|our|palm|second|some|super|than|that|the|their|third|this|was|were"
    r"|what|which|with|your)|(?-i:\b[A-Z]\w*))\s+\Z",
    re.IGNORECASE,
)


def english_times(text: str) -> Iterator[Named]:
    """Yield the times that a text names, one behind the other.

    Their sides are "before", "until", "since", "after", those of an end of a span ("from", "between", "through",
    "and"), and "up to", which means the time itself too.
    """
    if _HINT.search(text.lower()) is None:
        return
    last = Named(0, 0, "", "")
    for match in islice(_TIME.finditer(text), _MOST):
        one = _weekday(match, text, last) if match["weekday"] else _named(match, text, last)
        for each in () if one is None else _several(one, match, text, last.end):
            yield each
            last = each


def _named(match: re.Match[str], text: str, last: Named) -> Named | None:
    words, edge, time = _side_words(match), _edge(match), _spelled_out(match)
    of_part = _is_told_by(edge, time, words) and not behind(_HOW, text, match.start())
    if match["bare"] and words not in _TELLING and not of_part:
        listed = words in ("", "and") and last.side in ("", "and") and _LONG.fullmatch(last.time) is not None
        if listed and _goes_on(match, text, last):
            other_word = time in ("may", "march") or (time.isdigit() and not _A_YEAR.match(time))
            words = "" if other_word else "and"
        if words not in ENDS:
            return None
    if _is_another(match, words, time, text):
        return None
    side = SIDES.get(words, "")
    side = "since" if side == "from" and match["on"] else side
    if match["recent"]:
        side, time = side if side in ("before", "until") else "since", _recent(match["recent"])
    elif match["most"]:
        time = _ago(match["most"], match["unit"])
    elif match["half"] or match["years"]:
        time = f"{12 * counted(match['years']) + 6 if match['years'] else 6} months ago"
    elif match["before_last"]:
        time = f"2 {match['before_last']}s ago"
    elif match["night"] or match["now"] or match["weekend"]:
        time = "yesterday" if match["night"] else "today" if match["now"] else WEEKEND
    elif time.lower().startswith("past"):
        time = f"last{time[4:]}"
    one = Named(match.start(), match.end(), *_of_part(edge, side, time))
    if not lacks_year(one) or words == "last":
        return one
    return one._replace(coming=words == "next" or tense_at(text, one.start, one.end) is Tense.WILL)


def _side_words(match: re.Match[str]) -> str:
    """Return the words for a side; that of "early in May" stands behind what says which part."""
    return said(match) or ("in" if (match["edge"] or "").lower().endswith(" in") else "")


def _edge(match: re.Match[str]) -> str:
    """Return which part of a time is meant: "end", "first half", "week-1"; the empty text for the whole."""
    words = re.sub(r" (?:in|of)\Z", "", (match["edge"] or "").lower())
    if words.endswith("week"):
        return f"week-{_WEEKS.get(words.split()[0], 0)}"
    return words


def _spelled_out(match: re.Match[str]) -> str:
    """Return the time of a match as the library knows it: without what may stand before its year or its day."""
    time = match["time"]
    if match["spelled"]:
        time = f"{in_digits(match['spelled'])}{time[len(match['spelled']) :]}"
    return _BEFORE_DAY.sub("", _BEFORE_YEAR.sub(" ", time))


def _is_told_by(edge: str, time: str, words: str) -> bool:
    """Whether a month or a year alone is a time since a part of it is meant. "How early may she come?" tells none."""
    if time.isdigit():
        return edge != "" and _A_YEAR.fullmatch(time) is not None
    return edge != "" and (words != "" or edge not in ("early", "late") or time not in ("may", "march"))


def _of_part(edge: str, side: str, time: str) -> tuple[str, str]:
    """Return a side and a time with the part of it that is meant.

    A part of a month without a side is read as the month: what is told of its beginning is told in the days behind it.
    """
    if (side, edge) in OF_EDGE:
        return OF_EDGE[side, edge], time
    of_month, of_year = _A_MONTH.fullmatch(time) is not None, _A_YEAR.fullmatch(time) is not None
    whole = of_month and not side and not edge.startswith("week")
    if edge and (of_month or of_year) and not whole:
        return side, f"{_PARTS.get(edge, edge)} {time}".lower()
    return side, time


def _recent(words: str) -> str:
    number, _, unit = words.rpartition(" ")
    return _ago(number, unit)


def _ago(number: str, unit: str) -> str:
    count = counted(number)
    return f"{2 * count} weeks ago" if unit.lower().startswith("fortnight") else f"{count} {unit} ago"


def _is_another(match: re.Match[str], words: str, time: str, text: str) -> bool:
    """Whether what looks like a time is a part of something else, or a word or a name of its own."""
    if match["bare"] and not time.isdigit() and behind(THE, text, match.start("time")):
        # "During the march".
        return True
    if words in _NO_DAY and _OTHER_WORD.fullmatch(match["time"]):
        return True
    if words in _NO_DAY and _OTHER_WORD.fullmatch(match["time"].lower()) and " the " in match["time"]:
        # "May the 3rd, who was ill, go?"
        return _BEGINS.search(text, 0, match.start("time")) is not None
    if words in ("last", "next"):
        return behind(THE, text, match.start())
    if match["most"]:
        # "2 to 3-5 years ago", "3 weeks and 2 days ago", "twenty-one or two days ago".
        ends_another = match["least"] is not None and words in ("to", "through")
        return ends_another or behind(_COUNTED_ON, text, match.start("time"))
    return time.lower().startswith(("last", "past")) and behind(OF_SOMEBODY, text, match.start())


def _weekday(match: re.Match[str], text: str, last: Named) -> Named | None:
    """Return a weekday of the past, or one that comes where the question says so; none where it may be each of them."""
    words, which = said(match), " ".join((match["which"] or "").lower().split())
    side = "since" if words == "from" and match["on"] else SIDES.get(words, "")
    one = Named(match.start(), match.end(), side, match["weekday"].lower())
    if behind(THE, text, match.start("time")):
        return None
    if which in ("last", "past", "this past"):
        of_something = behind(OF_SOMEBODY, text, match.start()) or _LAST_OF.match(text, match.end())
        return None if of_something else one
    if which:
        return one._replace(coming=which == "next" or tense_at(text, one.start, one.end) is not Tense.WAS)
    if tells_a_habit(text, one.start, one.end) or not _STANDS_ALONE.match(text, match.end()):
        return None
    if last.time in WEEKDAYS and _goes_on(match, text, last):
        return one._replace(coming=last.coming)
    tense = tense_of(text, one.start, one.end, noted=words in _OF_THE_PAST)
    stands = words in _OF_THE_PAST or words in OPEN_WORDS or (not words and not behind(_NO_WEEKDAY, text, one.start))
    if side == "since":
        return one
    return one._replace(coming=tense is Tense.WILL) if stands and tense in (Tense.WAS, Tense.WILL) else None


def _goes_on(match: re.Match[str], text: str, last: Named) -> bool:
    """Whether a time is one more of a list, or the end of a span: "in May and June", "from Monday to Friday"."""
    between = text[last.end : match.start()]
    if match["side"]:
        return said(match) in ("and", "to", "through", "until", "till") and between.strip(" ,") == ""
    return _GOES_ON.fullmatch(between) is not None


def _several(one: Named, match: re.Match[str], text: str, after: int) -> Iterator[Named]:
    """Yield a time with those that have its month or its unit: "May 3-5", "2 or 3 weeks ago"."""
    if match["least"] and one.side not in OPEN:
        yield one._replace(end=one.start, side="between")
        yield one._replace(side="through", time=_ago(match["least"], match["unit"]))
        return
    first, last = _first_day(one, text, after), _last_day(one, text)
    if first is not None:
        yield first
    if last is not None:
        yield one._replace(side="between")
        yield last
    if first is None and last is None:
        yield from _days_of_one_month(one, text, after)
    elif last is None:
        yield one


def _days_of_one_month(one: Named, text: str, after: int) -> list[Named]:
    """Return a time with the days before it, or behind it, that have its month."""
    before = _DAYS_BEFORE.search(text, after, one.start) if one.side in ("", "and") else None
    if before is not None and (before["joiner"] or one.side) and not behind(_SIDED, text, before.start()):
        times = [time for day in re.findall(r"\d+", before[0]) if (time := of_a_span(day, one.time))]
        if times:
            return [*(one._replace(end=one.start, side="", time=time) for time in times), one._replace(side="")]
    after_it = _DAYS_BEHIND.match(text, one.end)
    if after_it is None or one.side in OPEN or not _MONTH_AND_DAY.fullmatch(one.time):
        return [one]
    year = after_it["year"] or ""
    days = re.findall(r"\d+", after_it["days"])
    return [one._replace(end=after_it.end(), time=f"{one.time}{year}")] + [
        one._replace(start=after_it.end(), end=after_it.end(), side="", time=f"{of_a_span(day, one.time)}{year}")
        for day in days
    ]


def _first_day(last: Named, text: str, after: int) -> Named | None:
    """Return the first day of a span from a number alone that stands before its last day, if one does."""
    found = _FIRST_DAY.search(text, after, last.start)
    if found is None or not (found["dash"] or last.side in ("through", "until", "and")):
        return None
    if last.side == "and" and not found[0].lower().startswith("between"):
        return None
    time = of_a_span(found["day"], last.time)
    return None if time is None else last._replace(start=found.start(), end=last.start, side="between", time=time)


def _last_day(first: Named, text: str) -> Named | None:
    """Return the last day of a span from a number alone that stands behind its first day, if one does."""
    found = _LAST_DAY.match(text, first.end)
    if found is None or first.side in OPEN or (found["also"] and first.side != "between"):
        return None
    time = of_a_span(found["day"], first.time)
    if time is None:
        return None
    return first._replace(start=first.end, end=found.end(), side="through", time=f"{time}{found['year'] or ''}")


def lacks_year(named: Named) -> bool:
    """Whether a time is one of each year, as a month and a day of one are, and its year is not said."""
    return _WITHOUT_YEAR.fullmatch(named.time) is not None or is_of_each_year(named.time)


def is_loose(named: Named) -> bool:
    """Whether a time is none where it is not one of the two ends of a span: a month, a season or a year alone."""
    return named.side in ENDS.values() and (_LONG.fullmatch(named.time) is not None or is_named(named.time))
