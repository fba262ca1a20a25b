"""Reads from a question which time it asks about: days, weeks, months and years, and whether the present is meant."""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final, TypeAlias

from dateparser.date import DateDataParser

from service.memories.asked_events import Event, Side, asked_event
from service.memories.time_tables import TIME_WORDS
from service.memories.time_words import COUNTED, Named, TimeWords, folded
from service.settings.languages import Language

_MONTH: Final = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)"
)
_DAY: Final = r"\d{1,2}(?:st|nd|rd|th)?"
_UNIT: Final = r"(?:day|week|month|year)s?"
_NUMBER: Final = r"(?:\d{1,3}|an?|one|two|three|four|five|six|seven|eight|nine|ten)"
#: What names a time. A month alone counts after a word that says so, for "may" and "march" are other words too.
_TIME: Final = re.compile(
    rf"""\b(?:(?P<side>before|until|after|since|in|on|during|of|by|from)\s+)?(?P<time>
      \d{{4}}-\d{{2}}-\d{{2}}
    | {_DAY}\s+(?:of\s+)?{_MONTH}(?:,?\s+\d{{4}})?
    | {_MONTH}\s+{_DAY}(?!\d)(?:,?\s+\d{{4}})?
    | {_MONTH},?\s+\d{{4}}
    | {_NUMBER}\s+{_UNIT}\s+ago
    | (?:the\s+day\s+before\s+)?yesterday | today
    | (?:last|this|past)\s+(?:week|month|year)
    | (?<=before\s){_MONTH} | (?<=after\s){_MONTH} | (?<=since\s){_MONTH} | (?<=in\s){_MONTH} | (?<=during\s){_MONTH}
    | (?:(?<=before\s)|(?<=after\s)|(?<=since\s)|(?<=in\s)|(?<=during\s))\d{{4}}(?!\s*{COUNTED})
    )\b""",
    re.IGNORECASE | re.VERBOSE,
)
_PRESENT: Final = re.compile(
    r"\b(?:current(?:ly)?|nowadays|now|at the moment|these days|latest|newest|most recent(?:ly)?|up to date)\b",
    re.IGNORECASE,
)
_PAST: Final = re.compile(
    r"\b(?:before|previous(?:ly)?|former(?:ly)?|earlier|originally|used to|back then|in the past|history)\b",
    re.IGNORECASE,
)
_SIDES: Final = {"before": "before", "until": "before", "since": "since", "after": "after"}
_YEAR: Final = re.compile(r"\b\d{4}\b")
Span: TypeAlias = tuple[datetime, datetime]


@dataclass(frozen=True, slots=True)
class AskedTime:
    """Spans of time that a question names, each from a moment up to another, and whether it means the present.

    `past` is a word for what is no longer so ("before she moved", "used to"), which names no span. Where no time is
    named, `event` is what the time is counted from, and `anchored` the span that the memory of it makes of that.
    """

    spans: tuple[Span, ...] = ()
    present: bool = False
    past: bool = False
    event: Event | None = None
    anchored: Span | None = None

    @property
    def wants_superseded(self) -> bool:
        """Whether what is no longer so may be the answer."""
        return bool(self.spans) or self.past


def asked_time(question: str, today: date, language: Language = Language.ENGLISH) -> AskedTime:
    """Return the time that a question asks about, as it is understood on a day. Without a network.

    Understood are English and, where `TIME_WORDS` has it, the language. Events are understood in English only.
    """
    words = TIME_WORDS.get(language)
    text = question if words is None else folded(question)
    named = [
        Named(match.start(), match.end(), _SIDES.get((match["side"] or "").lower(), ""), match["time"])
        for match in _TIME.finditer(text)
    ]
    if words is not None:
        named = _best([*words.times(text), *named])
    spans = tuple(_spans(named, text, words, today))
    event = None if spans else asked_event(question)
    # What was so until, or when, something happened need not be so now.
    past = _PAST.search(question) is not None or (event is not None and event.side is not Side.AFTER)
    present = _PRESENT.search(question) is not None
    if words is not None:
        past, present = past or words.means_past(text), present or words.means_present(text)
    return AskedTime(spans, present, past, event)


def span_at(moment: datetime, side: Side) -> Span:
    """Return the span that an event of a moment makes of the side that is asked about; "when" is its day."""
    if side is Side.BEFORE:
        return datetime.min.replace(tzinfo=UTC), moment
    if side is Side.AFTER:
        return moment, datetime.max.replace(tzinfo=UTC)
    day = moment.astimezone(UTC).date()
    return _moment(day), _moment(day + timedelta(days=1))


def _best(named: Iterable[Named]) -> list[Named]:
    """Return the times in their order; of those that overlap one that has a side, else the longest."""
    best: list[Named] = []
    for one in sorted(named, key=lambda each: (not each.side, each.start - each.end)):
        if all(one.end <= other.start or other.end <= one.start for other in best):
            best.append(one)
    return sorted(best)


def _spans(named: Sequence[Named], text: str, words: TimeWords | None, today: date) -> Iterator[Span]:
    rest = list(named)
    while rest:
        one = rest.pop(0)
        if words is not None and rest and _joined(one, rest[0], text, words):
            other = rest.pop(0)
            year = _YEAR.search(other.time)
            first = one.time if year is None or _YEAR.search(one.time) else f"{one.time} {year[0]}"
            ends = _span(first, today), _span(other.time, today)
            if ends[0] is not None and ends[1] is not None:
                yield ends[0][0], ends[1][1]
            continue
        span = _span(one.time, today)
        # Behind "to" a number alone need not be a year.
        if span is not None and not (one.side == "to" and one.time.isdigit()):
            yield _sided(span, one.side)


def _joined(one: Named, other: Named, text: str, words: TimeWords) -> bool:
    """Whether two times are the ends of one span: "from March to May", "since March until May"."""
    between = text[one.end : other.start]
    return words.joins(between) or (other.side in ("before", "to") and not between.strip())


def _span(words: str, today: date) -> Span | None:
    named = words.lower()
    try:
        return _whole(named, _parser(today).get_date_data(named))
    except (ValueError, OverflowError):
        # Of a day or a year that the calendar does not have.
        return None


def _whole(named: str, found: Any) -> Span | None:
    if found is None or found.date_obj is None:
        return None
    day = found.date_obj.date()
    if "week" in named:
        first = day - timedelta(days=day.weekday())
        return _moment(first), _moment(first + timedelta(days=7))
    if found.period == "year" or "year" in named:
        return _moment(date(day.year, 1, 1)), _moment(date(day.year + 1, 1, 1))
    if found.period == "month" or "month" in named:
        first = day.replace(day=1)
        return _moment(first), _moment(first + timedelta(days=calendar.monthrange(day.year, day.month)[1]))
    return _moment(day), _moment(day + timedelta(days=1))


def _sided(span: Span, side: str) -> Span:
    match side:
        case "before":
            return datetime.min.replace(tzinfo=UTC), span[0]
        case "since":
            return span[0], datetime.max.replace(tzinfo=UTC)
        case "after":
            return span[1], datetime.max.replace(tzinfo=UTC)
    return span


def _moment(day: date) -> datetime:
    return datetime.combine(day, time(), tzinfo=UTC)


def _parser(today: date) -> Any:
    settings = {
        "RELATIVE_BASE": datetime.combine(today, time(12)),
        "PREFER_DATES_FROM": "past",
        "PREFER_DAY_OF_MONTH": "first",
        "RETURN_AS_TIMEZONE_AWARE": False,
    }
    return DateDataParser(languages=["en"], settings=settings)
