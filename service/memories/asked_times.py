"""Reads from a question which time it asks about: days, weeks, months and years, and whether the present is meant."""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice
from typing import Any, Final, TypeAlias

from dateparser.date import DateDataParser

from service.memories.asked_events import Event, Side, asked_event
from service.memories.english_hours import english_hours
from service.memories.english_seasons import english_seasons
from service.memories.english_times import english_times, is_loose, lacks_year
from service.memories.relative_times import without_relative
from service.memories.time_tables import TIME_WORDS
from service.memories.time_words import Named, TimeWords, folded
from service.memories.weekdays import THIS_WEEKEND, WEEKDAYS, WEEKEND, days_named, in_week
from service.memories.year_parts import part_days
from service.settings.languages import Language

_PRESENT: Final = re.compile(
    r"\b(?:current(?:ly)?|nowadays|now|at the moment|these days|latest|newest|(?:most )?recently|most recent|up to date"
    r"|lately|of late|the other day|(?:a|the (?:last|past)) few (?:days|weeks))\b",
    re.IGNORECASE,
)
_PAST: Final = re.compile(
    r"\b(?:previous(?:ly)?|former(?:ly)?|earlier|originally|used to|back then|in the past|before(?=\s*[?!.;]|\W*$))\b",
    re.IGNORECASE,
)
#: What stands between the ends of a span that needs no word.
_DASHES: Final = frozenset("-\u2013\u2014")
#: The sides that the end of a span may have where words of another language than English are understood.
_LAST_ENDS: Final = frozenset({"before", "up to", "until", "to", "at", "through"})
#: "Before" inside of a question is of the past with a verb of the past: "what does she drink before bed?" is not.
_BEFORE: Final = re.compile(r"\bbefore\b", re.IGNORECASE)
_WAS: Final = re.compile(r"\b(?:did|had|was|were)\b", re.IGNORECASE)
_YEAR: Final = re.compile(r"\b\d{4}\b")
#: What stands between two times that may have one year, in every language: "in March or April 2025", "März/April 2025".
_LISTED: Final = frozenset(
    ["&", "/", ",", "or", "and", "oder", "und", "ou", "et", "o", "u", "y", "e", "ed", "of", "en"]
)
_JOINING: Final = 2
#: What tells of which week a weekday beside it is.
_A_WEEK: Final = re.compile(r"(?:last|this|next) week|\w+ weeks? ago", re.IGNORECASE)
#: A year that is told by the day of the question, and what may stand between it and a month of it.
_THAT_YEAR: Final = re.compile(r"(?:last|this|next) year|\w+ years? ago", re.IGNORECASE)
_OF_THAT: Final = frozenset(["", ",", "of", "des", "de", "de l'", "del", "dell'", "do", "van", "in", "im", "en", "em"])
#: What may stand between a weekday and its date or its week: "Monday, May 5", "am Montag, den 5. Mai".
_BESIDE: Final = frozenset(
    ["", ",", "(", "of", "in", "der", "den", "dem", ", den", ", dem", "de la", "de", "da", ", dia", "van"]
)
#: Times that are read in a question; each takes a millisecond.
_MOST: Final = 16
Span: TypeAlias = tuple[datetime, datetime]
#: The ends of a span that is open.
FIRST: Final = datetime.min.replace(tzinfo=UTC)
LAST: Final = datetime.max.replace(tzinfo=UTC)


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
    #: Whether a span is not the one that the question is asked in, as "today" and "this week" are.
    elsewhen: bool = False
    #: The question without words that mean other times in memories (`without_relative`); empty where all of it counts.
    rest: str = ""

    @property
    def wants_superseded(self) -> bool:
        """Whether what is no longer so may be the answer."""
        return self.elsewhen or self.past


def asked_time(question: str, today: date, language: Language = Language.ENGLISH) -> AskedTime:
    """Return the time that a question asks about, as it is understood on a day. Without a network.

    Understood are English and, where `TIME_WORDS` has it, the language. Events are understood in English only.
    """
    words = TIME_WORDS.get(language)
    # Many spaces in a row are a way to keep a regular expression busy.
    question = " ".join(question.split())
    text = question if words is None else folded(question)
    named = list(islice(english_times(text), _MOST))
    others = [*islice(english_seasons(text), _MOST), *islice(english_hours(text), _MOST)]
    if words is not None:
        others += islice(words.times(text, question), _MOST)
    if others:
        named = _best([*others, *named])
    named = _of_one_list(_of_one_year(_of_that_year(named, text, today), text), text)
    named = _of_that_week(named, text, today)
    spans = _narrowed(tuple(_spans(named, text, words, today)))
    event = None if spans else asked_event(question)
    # What was so until, or when, something happened need not be so now.
    past = _PAST.search(question) is not None or (event is not None and event.side is not Side.AFTER)
    past = past or (_BEFORE.search(question) is not None and _WAS.search(question) is not None)
    present = _PRESENT.search(question) is not None
    if words is not None:
        past, present = past or words.means_past(text, question), present or words.means_present(text)
    now = datetime.combine(today, time(12), tzinfo=UTC)
    # What is to come is no reason to ask for what is no longer so.
    elsewhen = any(begin <= now and not (begin > FIRST and now < end < LAST) for begin, end in spans)
    rest = without_relative(question, text, named) if spans else ""
    return AskedTime(spans, present, past, event, elsewhen=elsewhen, rest=rest)


def span_at(moment: datetime, side: Side) -> Span:
    """Return the span that an event of a moment makes of the side that is asked about; "when" is its day."""
    if side is Side.BEFORE:
        return FIRST, moment
    if side is Side.AFTER:
        return moment, LAST
    return _days(moment.astimezone(UTC).date(), 1)


def _best(named: Iterable[Named]) -> list[Named]:
    """Return the times in their order; of those that overlap one that has a side, else the longest."""
    best: list[Named] = []
    for one in sorted(named, key=lambda each: (not each.side, each.start - each.end)):
        if all(one.end <= other.start or other.end <= one.start for other in best):
            best.append(one)
    return sorted(best)


def _of_that_year(named: Sequence[Named], text: str, today: date) -> list[Named]:
    """Return the times with the year that stands beside one without: "in May last year" is one time."""
    given: list[Named] = []
    for other in named:
        one = given[-1] if given else None
        if one is not None and not other.side and text[one.end : other.start].strip() in _OF_THAT:
            month, year = (one, other) if lacks_year(one) else (other, one)
            span = _span(year, today) if lacks_year(month) and _THAT_YEAR.fullmatch(year.time) else None
            if span is not None:
                given[-1] = one._replace(end=other.end, time=f"{month.time} {span[0].year}", coming=False)
                continue
        given.append(other)
    return given


def _of_one_year(named: Sequence[Named], text: str) -> list[Named]:
    """Return the times with the year that one without shares with the next: "in March or April 2025"."""
    given: list[Named] = []
    for one in reversed(named):
        other = given[-1] if given else None
        if other is not None and one.side not in ("from", "between") and lacks_year(one):
            # The word may be a part of the time behind it, and one more may stand between: "oder am".
            joining = text[one.end : other.start].split() or text[other.start :].split(maxsplit=1)
            if joining and joining[0] in _LISTED and len(joining) <= _JOINING and not _YEAR.fullmatch(other.time):
                one = _with_year_of(one, other)
        given.append(one)
    return given[::-1]


def _of_one_list(named: Sequence[Named], text: str) -> list[Named]:
    """Return the times, of which a month or a year alone counts as one before it does: "in 2019 and 2021"."""
    given: list[Named] = []
    for one in named:
        before = given[-1] if given else None
        if before is not None and one.side == "and" and is_loose(one) and _is_listed(before):
            between = text[before.end : one.start].strip()
            one = one._replace(side=before.side) if between in _LISTED or not between else one
        given.append(one)
    return given


def _is_listed(named: Named) -> bool:
    return not named.side and is_loose(named._replace(side="and"))


def _of_that_week(named: Sequence[Named], text: str, today: date) -> list[Named]:
    """Return the times with a weekday in the week beside it, and without one beside its date: "Monday, May 5"."""
    given: list[Named] = []
    for other in named:
        one = given[-1] if given else None
        if one is not None and _is_beside(one, other, text):
            day, beside = (one, other) if one.time in (*WEEKDAYS, WEEKEND) else (other, one)
            of_week = _A_WEEK.fullmatch(beside.time) is not None and day.time in WEEKDAYS and not other.side
            week = _span(beside, today) if of_week else None
            if week is not None:
                time = in_week(day.time, week[0].date()).isoformat()
                given[-1] = Named(one.start, other.end, one.side, time)
                continue
            # A date says it all, and "Friday in May" is not the last one.
            given[-1] = Named(one.start, other.end, one.side or other.side, beside.time, beside.coming)
            continue
        given.append(other)
    return given


def _is_beside(one: Named, other: Named, text: str) -> bool:
    """Whether one of two times is a weekday, or the last weekend, and the other may tell which."""
    days = [each.time in (*WEEKDAYS, WEEKEND) for each in (one, other)]
    # "Last Friday before May 5" is before that day, at least.
    sided = days[0] and other.side in ("before", "after") and not one.side
    return any(days) and not all(days) and (sided or not other.side) and text[one.end : other.start].strip() in _BESIDE


def _spans(named: Sequence[Named], text: str, words: TimeWords | None, today: date) -> Iterator[Span]:
    rest = list(named)
    while rest:
        one = rest.pop(0)
        if rest and _joined(one, rest[0], text, words):
            span = _between(one, rest.pop(0), today)
            if span is not None:
                yield span
            continue
        # Behind "to" a number alone need not be a year, and "de lunes a viernes" is a habit.
        loose = is_loose(one) or (one.side == "to" and (one.time.isdigit() or one.time in WEEKDAYS))
        span = None if loose else _span(one, today)
        if span is not None:
            yield _sided(span, one.side)


def _between(one: Named, other: Named, today: date) -> Span | None:
    """Return the span between two times. The year of one is the other's too, unless a year ends between them."""
    first, last = _span(_with_year_of(one, other), today), _span(_with_year_of(other, one), today)
    if first is not None and last is not None and first[0] >= last[1]:
        if one.time in WEEKDAYS and other.time in WEEKDAYS:
            # "Between Monday and Wednesday", asked on a Tuesday.
            if one.coming:
                last = _span(other, first[0].date())
            else:
                first = _span(one, last[0].date())
        elif lacks_year(one):
            first = _span(_in_year(one, first[0].year - 1), today)
        elif lacks_year(other):
            last = _span(_in_year(other, last[0].year + 1), today)
    if first is None or last is None or first[0] >= last[1]:
        return None
    return first[0], last[1]


def _joined(one: Named, other: Named, text: str, words: TimeWords | None) -> bool:
    """Whether two times are the ends of one span: "from March to May", "since March until May"."""
    between = text[one.end : other.start].strip()
    if other.side == "and" or (one.side == "between" and not between):
        return one.side == "between" and not between
    if words is not None and (words.joins(between) or (other.side in _LAST_ENDS and not between)):
        return True
    ends = (other.side in ("until", "up to", "through") and not between) or (not other.side and between in _DASHES)
    return ends and one.side not in ("before", "after")


def _with_year_of(one: Named, other: Named) -> Named:
    """Return a time with the year of another, if it names none itself."""
    year = _YEAR.search(other.time)
    return one if year is None or not lacks_year(one) else _in_year(one, int(year[0]))


def _in_year(one: Named, year: int) -> Named:
    return one._replace(time=f"{one.time} {year:04}", coming=False)


def _narrowed(spans: tuple[Span, ...]) -> tuple[Span, ...]:
    """Return what two times mean together where one is open at its beginning and the other at its end."""
    if len(spans) != 2:
        return spans
    (begin, end), (other_begin, other_end) = sorted(spans)
    if begin == FIRST and other_end == LAST and other_begin < end < LAST:
        return ((other_begin, end),)
    return spans


def _span(named: Named, today: date) -> Span | None:
    words = named.time.lower()
    try:
        if words in (*WEEKDAYS, WEEKEND, THIS_WEEKEND):
            return _days(*days_named(words, today, coming=named.coming))
        if (part := part_days(words, today, coming=named.coming)) is not None:
            return _days(*part)
        span = _whole(words, _parser(today).get_date_data(words))
        if span is not None and named.coming and span[1].date() <= today:
            words = f"{words} {span[0].year + 1:04}"
            return _whole(words, _parser(today).get_date_data(words))
    except (ValueError, OverflowError):
        # Of a day or a year that the calendar does not have.
        return None
    return span


def _whole(named: str, found: Any) -> Span | None:
    if found is None or found.date_obj is None:
        return None
    day = found.date_obj.date()
    if "week" in named:
        first = day - timedelta(days=day.weekday())
        return _days(first, 7)
    if found.period == "year" or "year" in named:
        return _days(date(day.year, 1, 1), 366 if calendar.isleap(day.year) else 365)
    if found.period == "month" or "month" in named:
        first = day.replace(day=1)
        return _days(first, calendar.monthrange(day.year, day.month)[1])
    return _days(day, 1)


def _days(first: date, count: int) -> Span:
    """Return the span of some days; one that reaches behind the calendar ends with it."""
    begin = datetime.combine(first, time(), tzinfo=UTC)
    try:
        return begin, begin + timedelta(days=count)
    except OverflowError:
        return begin, LAST


def _sided(span: Span, side: str) -> Span:
    match side:
        case "before" | "until":
            return FIRST, span[0]
        case "up to":
            return FIRST, span[1]
        case "since":
            return span[0], LAST
        case "after":
            return span[1], LAST
    return span


def _parser(today: date) -> Any:
    settings = {
        "RELATIVE_BASE": datetime.combine(today, time(12)),
        "PREFER_DATES_FROM": "past",
        "PREFER_DAY_OF_MONTH": "first",
        "RETURN_AS_TIMEZONE_AWARE": False,
    }
    return DateDataParser(languages=["en"], settings=settings)
