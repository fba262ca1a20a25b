"""Finds the times that an English text names, with the side of each that is meant."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Final

from service.memories.english_tenses import Tense, tense_at
from service.memories.time_words import COUNTED, OF_EDGE, WHOLE, Named, of_a_span
from service.memories.weekdays import WEEKDAYS, WEEKEND

_MONTH: Final = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)"
)
_DAY: Final = r"\d{1,2}(?:st|nd|rd|th)?"
_UNIT: Final = r"(?:day|week|month|year)s?"
_COUPLE: Final = r"(?:a\s+)?couple(?:\s+of)?"
_NUMBER: Final = rf"(?:\d{{1,3}}|an?|one|two|three|four|five|six|seven|eight|nine|ten|{_COUPLE})"
#: What is not before such a number: "twenty-one days ago", "half a year ago".
_NO_PART: Final = (
    r"(?<!twenty\s)(?<!thirty\s)(?<!forty\s)(?<!fifty\s)(?<!sixty\s)(?<!seventy\s)(?<!eighty\s)(?<!ninety\s)"
    r"(?<!hundred\s)(?<!hundred\sand\s)(?<!half\s)(?<!quarter\sof\s)"
)
#: What stands before the year of a month: "in May of 2024", "May 3, 2025", "in March of the year 2025".
_OF_YEAR: Final = r",?\s+(?:of\s+)?(?:the\s+year\s+)?"
#: What makes somebody's or something's name of a month before it: "before June moved out", "April's class".
_NAMED_SO: Final = (
    r"(?!['’]s\b|\s+['’]\d|\s+(?:\w+ed|was|had|went|left|got|came|told|said|gave|took|became|began|started|met|bought"
    r"|found|made|quit|is|has|does|can|could|will|would|should|might|must)\b)"
)
#: What a number behind a month counts, so that it is no day.
_OF_ANYTHING: Final = rf"(?:{COUNTED}|(?:{_UNIT}|hours?|minutes?|times)\b)"
_WEEKDAY: Final = f"(?:{'|'.join(WEEKDAYS)})"
_PART_OF_DAY: Final = r"(?:\s+(?:morning|midday|noon|lunchtime|afternoon|evening|night)\b)"
_TIME: Final = re.compile(
    rf"""\b(?:(?P<side>before|prior\s+to|earlier\s+than|until|till|up\s+to|after|(?<!no\s)(?<!not\s)later\s+than|since
        |in|on|during|of|by|from|between|to|through|and|(?<!no\s)(?<!not\s)(?:more|less)\s+than(?=\s+{_NUMBER}\s)
        |(?:last|next)(?=\s+{_MONTH}\b))\s+)?
    (?:(?:the\s+)?(?P<edge>end|start|beginning)\s+of\s+)?(?:the\s+(?:(?:year|month\s+of)\s+)?)?(?P<time>
      \d{{4}}-\d{{2}}-\d{{2}}
    | {_DAY}\s+(?:of\s+)?{_MONTH}(?:{_OF_YEAR}\d{{4}})?
    | {_MONTH}\s+{_DAY}(?!\d)(?!\s*{_OF_ANYTHING})(?:{_OF_YEAR}\d{{4}})?
    | {_MONTH}{_OF_YEAR}\d{{4}}
    | {WHOLE}{_NO_PART}(?:(?P<least>{_NUMBER})\s*(?:\b(?:or|and|to)\b|[-\u2013\u2014])\s*)?
      (?P<most>{_NUMBER})\s+(?P<unit>{_UNIT})\s+ago(?:\s+today)?
    | (?:the\s+day\s+before\s+)?yesterday | (?:the\s+day\s+after\s+)?tomorrow | today
    | (?:the\s+)?(?P<before_last>week|month|year)\s+before\s+last\b(?!\s+(?:{_UNIT}|night|{_WEEKDAY}|{_MONTH})\b)
    | (?P<night>(?<!\bthe\s)last\s+night) | (?P<now>this\s+(?:morning|afternoon|evening)|tonight)
    | (?<!\bthe\s)(?:last|past|next)\s+(?:week|month|year)\b(?!\s+of\b) | this\s+(?:week|month|year)
    | (?<!\bthe\s)(?:last|past)\s+(?P<weekend>weekend)(?!\s+of\b)
    | (?:(?P<which>last|this\s+past|past|this|next)\s+)?(?P<weekday>{_WEEKDAY}){_PART_OF_DAY}?
    | the\s+(?:last|past)\s+(?P<recent>{_NUMBER}\s+{_UNIT}|week|month|year)(?!\s+of\b)
    | (?P<bare>{_MONTH}{_NAMED_SO} | \d{{4}}(?!\s*{_OF_ANYTHING}))
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
#: What may stand behind a weekday, or a number that is a day: no word that it would be the name or the number of.
_ALONE: Final = (
    rf"(?=\s*(?:[,;:?!)&/\u2013\u2014]|\.(?!\w)|-\s*{_WEEKDAY}|$)|\s+(?:a|about|after|an|and|as|at|because|before|but"
    r"|by|did|during|for|from|he|her|his|how|i|if|in|it|last|my|next|of|on|or|our|she|so|that|the|their|then|they|this"
    r"|through|till|to|until|was|we|were|what|when|where|which|while|who|why|with|you|your)\b)"
)
#: "On Friday the 13th" is of another Friday.
_STANDS_ALONE: Final = re.compile(rf"(?!,?\s*(?:the\s+)?\d){_ALONE}", re.IGNORECASE)
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
    rf"(?P<days>(?:\s*{_JOINER}\s*(?:the\s+)?{_DAY}\b(?![.:]?\d)){{1,6}})(?P<year>,?\s+\d{{4}}\b)?(?!\s+of\b){_ALONE}",
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
_ENDS: Final = {"from": "from", "between": "between", "to": "through", "through": "through", "and": "and"}
_SIDES: Final = {
    **{"before": "before", "prior to": "before", "earlier than": "before", "until": "until", "till": "until"},
    **{"up to": "up to", "since": "since", "after": "after", "later than": "after"},
    **{"more than": "before", "less than": "since"},
    **_ENDS,
}
_OPEN: Final = frozenset({"before", "until", "up to", "since", "after"})
#: Behind these a weekday without a verb is one of the past: "notes from Monday". "Until Monday" leaves it open.
_OF_THE_PAST: Final = frozenset({"on", "from", "between", "after"})
_OPEN_WORDS: Final = frozenset({"before", "prior to", "earlier than", "until", "till", "up to", "later than", "since"})
#: Words of their own in small letters: "30 may come", "how many of 30 may", "march 10 miles".
_NO_DAY: Final = frozenset({"", "of", "and"})
_OTHER_WORD: Final = re.compile(r"\d{1,2}\s+(?:may|march)|(?:may|march)\s+\d{1,2}")
_BEFORE_YEAR: Final = re.compile(rf"{_OF_YEAR}(?=\d{{4}}\Z)", re.IGNORECASE)
_WITHOUT_YEAR: Final = re.compile(rf"(?:{_DAY}\s+(?:of\s+)?)?{_MONTH}(?:\s+{_DAY})?", re.IGNORECASE)
_MONTH_AND_DAY: Final = re.compile(rf"{_MONTH}\s+{_DAY}", re.IGNORECASE)
_LONG: Final = re.compile(rf"\d{{4}}|{_MONTH}", re.IGNORECASE)
_A_YEAR: Final = re.compile(r"(?:19|20)\d\d")
#: Before "last year" these make it the last of something: "her last year at school". "Her" alone may be somebody.
_OF_SOMEBODY: Final = re.compile(
    r"(?:\b(?:my|your|his|its|our|their)|['’]s|\b(?:after|before|during|for|in|of|on|over|since|until)\s+her)\s+\Z",
    re.IGNORECASE,
)
_LAST_OF: Final = re.compile(rf"\s+(?:of|in\s+(?:{_MONTH}|\d{{4}}))\b", re.IGNORECASE)
_COUNTED_ON: Final = re.compile(rf"\b{_NUMBER}\s+{_UNIT}\s+(?:and\s+)?\Z", re.IGNORECASE)
_THE: Final = re.compile(r"\bthe\s+\Z", re.IGNORECASE)
_SIDED: Final = re.compile(r"\b(?:after|before|between|from|since|till|to|until)\s+\Z", re.IGNORECASE)
#: Characters that are looked at for a word before a time and around a weekday, and matches that may be times.
_NEAR: Final = 24
_AROUND: Final = 300
_MOST: Final = 64
#: Before a weekday without "on" these make it another thing: "every Friday", "Black Friday", "who is called Friday".
_NO_WEEKDAY: Final = re.compile(
    r"(?:['’]s|\b(?:a|about|an|another|any|ash|be|black|called|cyber|easter|every|each|fat|first|for|giving|good|her|his"
    r"|holy|is|its|like|most|my|named|next|no|of|one|our|palm|second|some|super|than|that|the|their|third|this|was|were"
    r"|what|which|with|your)|(?-i:\b[A-Z]\w*))\s+\Z",
    re.IGNORECASE,
)
_HABIT: Final = re.compile(
    r"\b(?:always|each|ever|every|generally|never|normally|often|regularly|typically|use(?:d)?\s+to|usual(?:ly)?|weekly)\b",
    re.IGNORECASE,
)
#: A question without a verb of the past: "Who comes on Monday?", "appointments on Monday".
_ASKS: Final = re.compile(
    r"\b(?:how|what|when|where|which|who|whom|whose|why|agenda|appointments?|calendar|deadlines?|due|free|plans?|remind"
    r"|reminders?|schedule|tasks?|to-?dos?|upcoming)\b",
    re.IGNORECASE,
)


def english_times(text: str) -> Iterator[Named]:
    """Yield the times that a text names, one behind the other.

    Their sides are "before", "until", "since", "after", those of an end of a span ("from", "between", "through",
    "and"), and "up to", which means the time itself too.
    """
    last = Named(0, 0, "", "")
    for match in islice(_TIME.finditer(text), _MOST):
        one = _weekday(match, text, last) if match["weekday"] else _named(match, text, last)
        for each in () if one is None else _several(one, match, text, last.end):
            yield each
            last = each


def _named(match: re.Match[str], text: str, last: Named) -> Named | None:
    said, time = _said(match), _BEFORE_YEAR.sub(" ", match["time"])
    if match["bare"] and said not in _TELLING:
        listed = said in ("", "and") and last.side in ("", "and") and _LONG.fullmatch(last.time) is not None
        if listed and _goes_on(match, text, last):
            other_word = time in ("may", "march") or (time.isdigit() and not _A_YEAR.match(time))
            said = "" if other_word else "and"
        if said not in _ENDS:
            return None
    if _is_another(match, said, time, text):
        return None
    side = _SIDES.get(said, "")
    side = "since" if side == "from" and match["on"] else side
    if match["recent"]:
        recent = match["recent"] if " " in match["recent"] else f"1 {match['recent']}"
        side, time = side if side in ("before", "until") else "since", f"{_counted(recent)} ago"
    elif match["most"]:
        time = f"{_counted(match['most'])} {match['unit']} ago"
    elif match["before_last"]:
        time = f"2 {match['before_last']}s ago"
    elif match["night"] or match["now"] or match["weekend"]:
        time = "yesterday" if match["night"] else "today" if match["now"] else WEEKEND
    elif time.lower().startswith("past"):
        time = f"last{time[4:]}"
    one = Named(match.start(), match.end(), OF_EDGE.get((side, (match["edge"] or "").lower()), side), time)
    if not lacks_year(one) or said == "last":
        return one
    return one._replace(coming=said == "next" or tense_at(text, one.start, one.end) is Tense.WILL)


def _is_another(match: re.Match[str], said: str, time: str, text: str) -> bool:
    """Whether what looks like a time is a part of something else, or a word or a name of its own."""
    if match["bare"] and not match["edge"] and not time.isdigit() and _behind(_THE, text, match.start("time")):
        # "During the march".
        return True
    if said in _NO_DAY and _OTHER_WORD.fullmatch(time):
        return True
    if said in ("last", "next"):
        return _behind(_THE, text, match.start())
    if match["most"]:
        # "2 to 3-5 years ago", "3 weeks and 2 days ago".
        ends_another = match["least"] is not None and said in ("to", "through")
        return ends_another or _behind(_COUNTED_ON, text, match.start("time"))
    return time.lower().startswith(("last", "past")) and _behind(_OF_SOMEBODY, text, match.start())


def _weekday(match: re.Match[str], text: str, last: Named) -> Named | None:
    """Return a weekday of the past, or one that comes where the question says so; none where it may be each of them."""
    said, which = _said(match), " ".join((match["which"] or "").lower().split())
    side = "since" if said == "from" and match["on"] else _SIDES.get(said, "")
    one = Named(match.start(), match.end(), side, match["weekday"].lower())
    if _behind(_THE, text, match.start("time")):
        return None
    if which in ("last", "past", "this past"):
        of_something = _behind(_OF_SOMEBODY, text, match.start()) or _LAST_OF.match(text, match.end())
        return None if of_something else one
    tense = tense_at(text, one.start, one.end)
    if which:
        return one._replace(coming=which == "next" or tense is not Tense.WAS)
    around = max(0, one.start - _AROUND), one.end + _AROUND
    if _HABIT.search(text, *around) or not _STANDS_ALONE.match(text, match.end()):
        return None
    if last.time in WEEKDAYS and _goes_on(match, text, last):
        return one._replace(coming=last.coming)
    if tense is None and said in _OF_THE_PAST and not _ASKS.search(text, *around):
        tense = Tense.WAS
    stands = said in _OF_THE_PAST or said in _OPEN_WORDS or (said == "" and not _behind(_NO_WEEKDAY, text, one.start))
    if side == "since":
        return one
    return one._replace(coming=tense is Tense.WILL) if stands and tense in (Tense.WAS, Tense.WILL) else None


def _said(match: re.Match[str]) -> str:
    return " ".join((match["side"] or "").lower().split())


def _behind(pattern: re.Pattern[str], text: str, end: int) -> bool:
    """Whether a pattern, which ends with its text, takes what stands just in front of a place of it."""
    return pattern.search(text, max(0, end - _NEAR), end) is not None


def _goes_on(match: re.Match[str], text: str, last: Named) -> bool:
    """Whether a time is one more of a list, or the end of a span: "in May and June", "from Monday to Friday"."""
    between = text[last.end : match.start()]
    if match["side"]:
        return _said(match) in ("and", "to", "through", "until", "till") and between.strip(" ,") == ""
    return _GOES_ON.fullmatch(between) is not None


def _counted(words: str) -> str:
    return re.sub(_COUPLE, "2", words, flags=re.IGNORECASE)


def _several(one: Named, match: re.Match[str], text: str, after: int) -> Iterator[Named]:
    """Yield a time with those that have its month or its unit: "May 3-5", "2 or 3 weeks ago"."""
    if match["least"] and one.side not in _OPEN:
        yield one._replace(end=one.start, side="between")
        yield one._replace(side="through", time=f"{_counted(match['least'])} {match['unit']} ago")
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
    if before is not None and (before["joiner"] or one.side) and not _behind(_SIDED, text, before.start()):
        times = [time for day in re.findall(r"\d+", before[0]) if (time := of_a_span(day, one.time))]
        if times:
            return [*(one._replace(end=one.start, side="", time=time) for time in times), one._replace(side="")]
    behind = _DAYS_BEHIND.match(text, one.end)
    if behind is None or one.side in _OPEN or not _MONTH_AND_DAY.fullmatch(one.time):
        return [one]
    year = behind["year"] or ""
    days = re.findall(r"\d+", behind["days"])
    return [one._replace(end=behind.end(), time=f"{one.time}{year}")] + [
        one._replace(start=behind.end(), end=behind.end(), side="", time=f"{of_a_span(day, one.time)}{year}")
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
    if found is None or first.side in _OPEN or (found["also"] and first.side != "between"):
        return None
    time = of_a_span(found["day"], first.time)
    if time is None:
        return None
    return first._replace(start=first.end, end=found.end(), side="through", time=f"{time}{found['year'] or ''}")


def lacks_year(named: Named) -> bool:
    """Whether a time is a month, or a day of one, without its year."""
    return _WITHOUT_YEAR.fullmatch(named.time) is not None


def is_loose(named: Named) -> bool:
    """Whether a time is none where it is not one of the two ends of a span: a month or a year alone."""
    return named.side in _ENDS.values() and _LONG.fullmatch(named.time) is not None
