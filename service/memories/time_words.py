"""Finds the times that a text in another language than English names, by its words, and puts them into English."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

from service.memories.weekdays import WEEKDAYS

_MONTHS: Final = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)

COUNTED: Final = (
    r"(?:euros?|dollars?|dolares|dollari|franken|francs?|pfund|pounds?|%|€|\$|prozent|percent|km|kg|kilo\w*|grams?|grammi?"
    r"|gramos?|met(?:er|re|ri|ro|ros|res|ers)|miles?|steps?|schritten?|pas|pasos|passi|passos|stappen|people|personen"
    r"|personnes|personas|persone|pessoas)(?!\w)"
)
"""What a number that could be a year counts: then it is none."""

WHOLE: Final = r"(?<!\d[.,])(?<![/-])(?<!\se\s)(?<!\sy\s)"
"""What is not before a number that is whole: "1.5 years ago" is not five, nor is "vinte e dois anos atrás" two."""

_YEAR: Final = re.compile(r"(?:19|20)\d\d")
_A_DAY: Final = re.compile(
    r"(?:\d{1,2}[a-z]*\s+(?:of\s+)?(?P<month>[a-z]{3,})|(?P<first>[a-z]{3,})\s+\d{1,2}[a-z]*),?(?P<year>(?:\s+\d{4})?)",
    re.IGNORECASE,
)
#: In Dutch accents make "before" of "for".
_ACCENTED: Final = {"v\u00f3\u00f3r": "eerder dan"}


_DASH: Final = r"[-\u2013]"
#: What makes more of a number of years: "il y a deux ans et demi".
_AND_A_HALF: Final = r"\s+(?:et|y|e)\s+(?:demie?|medi[ao]|mei[ao])\b"
#: The part of a year that its beginning and its end are.
_OF_YEAR: Final = {"beginning": "early", "end": "late"}
#: The side of a whole time that the side of its beginning or its end is. "Up to" means the time itself too; "at" is one
#: of its own that may be the end of a span as well: "à la fin de 2024".
OF_EDGE: Final = {
    ("to", "end"): "at",
    ("to", "beginning"): "at",
    ("before", "end"): "up to",
    ("until", "end"): "up to",
    ("since", "end"): "after",
    ("after", "start"): "since",
    ("after", "beginning"): "since",
}


class Named(NamedTuple):
    """Where a text names a time, in English, and its side as `english_times` has it; "to" is an end of a span.

    A weekday, and a day or a month without its year, is the last one, or the one that is `coming`.
    """

    start: int
    end: int
    side: str
    time: str
    coming: bool = False


@dataclass(frozen=True)
class TimeWords:
    """The words of one language, as regular expressions without groups that capture, over what `folded` returns.

    `short` are the months cut short, which count before a year only: many are other words too. `numbers` are those
    from one to ten, `one` are the units that can be the last or this one. `{number}`, `{unit}` and `{one}` stand for
    these, `{one}` for a weekday too, and `{number}` for two with a word of `either` between them. In the place of both
    may stand a length that has words of its own (`lengths`), or several weekdays with a `plural` behind their names.
    A weekday alone is one of the past where the text has a verb of it; it stands behind `on`, which ends in front of
    it, or behind what says a side, and not behind words of a `habit`. `before`, `since` and `after` say which side of
    a time is meant, `within` that a month or a year follows, which alone could be another word or number, `monthly`
    that a month does. An `article` may stand between these and the time, `of` between a day, its month and the year,
    an `ordinal` behind the number of a day. `to` joins the two ends of a span, as `also` does behind `between`.
    `beginning` and `ending` are those of a month or a year. `past` are words for what is no longer so, and so is
    `earlier` beside a verb of the past (`was`): what she drinks before bed is so now.
    """

    months: tuple[str, ...]
    short: tuple[str, ...]
    numbers: tuple[str, ...]
    units: Mapping[str, str]
    one: Mapping[str, str]
    ago: str
    either: str
    plural: str
    lengths: Mapping[str, str]
    last: str
    before_last: str
    this: str
    next: str
    weekdays: Mapping[str, str]
    on: str
    habit: str
    days: Mapping[str, str]
    before: str
    since: str
    after: str
    within: str
    monthly: str
    article: str
    of: str
    ordinal: str
    to: str
    between: str
    also: str
    beginning: str
    ending: str
    present: str
    past: str
    earlier: str
    was: str

    def times(self, text: str, question: str) -> Iterator[Named]:
        """Yield the times that a folded text names, one behind the other; `question` is the same as it was written."""
        past = self._tells_of_the_past(text, question)
        sides = {
            **{"before": self.before, "since": self.since, "after": self.after, "to": self.to},
            **{"between": self.between, "and": self.also},
        }
        edges = {"beginning": self.beginning, "end": self.ending}
        named = 0
        for match in self._times.finditer(text):
            side = _name(sides, match["side"] or match["near"])
            time = self._in_english(match)
            if self._stays_open(match, time, text, past=past):
                continue
            pair = self._pair.search(match["ago"] or "")
            if match["ago"] and pair is None and self._one_of_two.search(text, named, match.start()):
                # "Vinte e dois ou três anos atrás".
                continue
            coming = time in WEEKDAYS and match["last"] is None and not (past and match["next"] is None)
            # "Vom 3. bis 5. Mai" is no time before the fifth.
            number = self._numbers.search(text, named, match.start()) if side in ("before", "to", "and") else None
            if number is not None and (side != "and" or number["between"]):
                first = of_a_span(number["day"], time)
                if first is None:
                    continue
                yield Named(number.start(), match.start(), "between", first)
            named = match.end()
            edge = _name(edges, match["edge"] or match["near_edge"] or match["near"])
            one = Named(match.start(), match.end(), OF_EDGE.get((side, edge), side), time, coming)
            if pair is not None and not side:
                yield one._replace(end=one.start, side="between")
                yield one._replace(
                    side="through", time=f"{self._number(pair['least'])} {_name(self.units, pair[0])}s ago"
                )
                continue
            if edge and one.side in ("", "at") and _YEAR.fullmatch(time):
                one = one._replace(time=f"{_OF_YEAR[edge]} {time}")
            yield one

    def joins(self, between: str) -> bool:
        """Whether what stands between two times makes a span of them."""
        return re.fullmatch(rf"\s*{_any([self.to])}\s*", between) is not None

    def means_present(self, text: str) -> bool:
        """Whether a folded text means what is so now."""
        return self._present.search(text) is not None

    def means_past(self, text: str, question: str) -> bool:
        """Whether a folded text means what is no longer so; `question` is the same as it was written.

        An accent can be all that tells a verb of the past: "trabajó", of "trabajo".
        """
        if self._past.search(text) is not None:
            return True
        return self._earlier.search(text) is not None and self._tells_of_the_past(text, question)

    def _tells_of_the_past(self, text: str, question: str) -> bool:
        return any(map(self._was.search, (text, unicodedata.normalize("NFC", question.lower()))))

    def _stays_open(self, match: re.Match[str], time: str, text: str, *, past: bool) -> bool:
        """Whether a weekday may be each of them, or is one of a month: "am Montag", "am letzten Montag im Mai"."""
        if match["weekday"] is not None:
            return not past
        of_a_month = match["last"] is not None and (time in WEEKDAYS or time == "last week")
        return of_a_month and self._of_month.match(text, match.end()) is not None

    def _in_english(self, match: re.Match[str]) -> str:
        found = {name: text for name, text in match.groupdict().items() if text is not None}
        match found:
            case {"iso": day}:
                return day
            case {"numeric": numbers}:
                day, month, year = map(int, re.findall(r"\d+", numbers))
                return f"{year:04}-{month:02}-{day:02}"
            case {"ago": words}:
                if length := _name(self.lengths, words):
                    return f"{length} ago"
                pair = self._pair.search(words)
                return f"{self._number(pair['most'] if pair else words)} {_name(self.units, words)}s ago"
            case {"weekdays_ago": words}:
                return f"{self._number(words)} {_name(self._weekdays_back, words)} ago"
            case {"weekday": words}:
                return _name(self.weekdays, words)
            case {"last": words}:
                return self._one_of("last", words)
            case {"before_last": words}:
                name = _name({**self.one, **self.weekdays}, words)
                return f"2 {name} ago" if name in WEEKDAYS else f"2 {name}s ago"
            case {"this": words}:
                return self._one_of("this", words)
            case {"next": words}:
                return self._one_of("next", words)
            case {"relative": words} | {"sided_relative": words}:
                return _name(self.days, words)
        months = dict(zip(_MONTHS, map("|".join, zip(self.months, self.short, strict=True)), strict=True))
        named = {kind: _name(months, text) for kind, text in found.items() if kind.endswith("month")}
        return " ".join(named.get(kind, text) for kind, text in found.items() if kind in _PARTS)

    def _one_of(self, which: str, words: str) -> str:
        name = _name({**self.one, **self.weekdays}, words)
        return name if name in WEEKDAYS else f"{which} {name}"

    def _number(self, words: str) -> str:
        digits = re.search(r"\d+", words)
        if digits:
            return digits[0]
        return _name({str(number): pattern for number, pattern in enumerate(self.numbers, 1)}, words)

    @cached_property
    def _times(self) -> re.Pattern[str]:
        # Days first: in some languages the day before yesterday begins with "before".
        days, month = _any(self.days.values()), _any(self.months)
        sides = _any((self.before, self.since, self.after, self.between, self.also, self.to))
        dated = _any((*self.months, *self.short))
        kinds = {
            "number": self._any_number,
            "unit": _any(self.units.values()),
            "one": _any((*self.one.values(), *self.weekdays.values())),
        }
        several = rf"{self._any_number}(?:\s*{_any([self.either, _DASH])}\s*{self._any_number})?"
        lengths = self.ago.replace("{number} {unit}", _any(self.lengths.values()))
        ago = _any((lengths, self.ago.format(number=several, unit=kinds["unit"])))
        weekdays_ago = _spaced(self.ago).format(
            number=_any((r"[2-9]", *self.numbers[1:])), unit=_any(self._weekdays_back.values())
        )
        last, before_last, this, following = (
            _spaced(words).format_map(kinds) for words in (self.last, self.before_last, self.this, self.next)
        )
        no_habit = "".join(rf"(?<!\b{word}\s)" for word in self.habit.split("|"))
        # Before a weekday it may stand in front of "last" too: "el lunes pasado".
        on = _any([self.on])
        of = rf"(?:\.\s*|\s+)(?:{_any([self.of])}\s*)?"
        article, to = rf"(?:{_any([self.article])}\s*)?", _any([self.to])
        # "Vendredi 13" is of another Friday, "mardi gras" of none.
        other = rf"(?!,?\s+{article}\d|\s+(?:gras|saint|sant[ao]?)\b)"
        weekday = rf"(?(side)|{on}){no_habit}{_any(self.weekdays.values())}{other}"
        # "Mai 2024", "mayo de 2024", "mai de l'année 2024".
        of_year = rf"{of}{article}(?:(?:{self.one['year']})\s+(?:{_any([self.of])}\s*)?)?"
        # "The end of May", and not "of the end of May": what stands before it may hold the same word.
        edge = rf"{_any([self.beginning, self.ending])}\s+(?:{_any([self.of])}\s*)?{article}"
        # The whole expression is verbose, so that a space in it is none.
        return re.compile(
            rf"""\b(?: (?P<relative>{days}) | (?:(?P<side>{sides})\s*{article}(?:\b(?P<edge>{edge}))?)? \b(?:
                  (?P<iso>\d{{4}}-\d{{2}}-\d{{2}})
                | (?P<numeric>\d{{1,2}}[./-]\s?\d{{1,2}}[./-]\s?\d{{4}})
                | (?:(?P<day>\d{{1,2}}){self.ordinal}{of})? (?P<month>{dated}){of_year}(?P<year>\d{{4}})
                | (?P<near_day>\d{{1,2}}){self.ordinal}{of}(?P<day_month>{month})
                | {WHOLE}(?: (?P<ago>{ago})(?!{_AND_A_HALF}) | (?P<weekdays_ago>{weekdays_ago}) )
                | {on}?(?: (?P<before_last>{before_last}) | (?P<last>{last}) )
                | {on}?(?: (?P<this>{this}) | (?P<next>{following}) )
                | (?P<weekday>{weekday}) | (?P<sided_relative>{days})
            ) | (?P<near>{sides}|{_any([self.within])}|{_any([self.monthly])}(?!\s*\d)
                    |{_any([self.beginning, self.ending])})\s*{article}
              (?:\b(?P<near_edge>{edge}))? \b(?:
                  (?P<near_month>{month})\b (?!{of_year}\d{{4}})
                | (?:(?:{self.one["year"]})\s+(?:{_any([self.of])}\s*)?)?
                  (?P<near_year>(?:19|20)\d\d) (?!(?:\s+{to}\s+\d+)?\s*{COUNTED})
            ))\b""",
            re.VERBOSE,
        )

    @cached_property
    def _weekdays_back(self) -> dict[str, str]:
        """The weekdays as they stand behind a number of them."""
        return {day: rf"(?:{name})(?:{self.plural})?" for day, name in self.weekdays.items()}

    @cached_property
    def _pair(self) -> re.Pattern[str]:
        """Two numbers of which either is meant, with their unit: "two or three weeks"."""
        number, either = self._any_number, _any([self.either, _DASH])
        return re.compile(rf"\b(?P<least>{number})\s*{either}\s*\b(?P<most>{number})\s+{_any(self.units.values())}")

    @cached_property
    def _one_of_two(self) -> re.Pattern[str]:
        """The first of two such numbers, at the end of a text."""
        return re.compile(rf"\b{self._any_number}\s+{_any([self.either])}\s+\Z")

    @cached_property
    def _any_number(self) -> str:
        return _any((r"\d{1,3}", *self.numbers))

    @cached_property
    def _numbers(self) -> re.Pattern[str]:
        """A number at the end of a text: the first day of a span whose last has the month."""
        between, article = _any([self.between]), _any([self.article])
        return re.compile(
            rf"(?:\b(?P<between>{between})\s+)?(?:\b{article}\s*)?(?<![\d.,/-])(?P<day>\d+){self.ordinal}\.?\s*\Z"
        )

    @cached_property
    def _of_month(self) -> re.Pattern[str]:
        """A month that the weekday or the week before it is one of."""
        return re.compile(rf"\s+{_any([self.of, 'im', 'in'])}\s*{_any([self.article, ''])}\s*{_any(self.months)}\b")

    @cached_property
    def _present(self) -> re.Pattern[str]:
        return re.compile(rf"\b{_any([self.present])}\b")

    @cached_property
    def _past(self) -> re.Pattern[str]:
        return _whole(self.past)

    @cached_property
    def _earlier(self) -> re.Pattern[str]:
        return _whole(self.earlier)

    @cached_property
    def _was(self) -> re.Pattern[str]:
        return _whole(self.was)


_PARTS: Final = frozenset({"day", "month", "year", "near_day", "day_month", "near_month", "near_year"})


def of_a_span(day: str, time: str) -> str | None:
    """Return a day with the month and the year of a time in English, or a year before another; None for neither."""
    if _YEAR.fullmatch(day) and _YEAR.fullmatch(time):
        return day
    other = _A_DAY.fullmatch(time) if len(day) <= len("31") else None
    return None if other is None else f"{day} {other['month'] or other['first']}{other['year']}"


def folded(text: str) -> str:
    """Return a text in lower case, without accents, and with straight apostrophes."""
    plain = unicodedata.normalize("NFC", text.lower().replace("\u2019", "'"))
    for accented, meant in _ACCENTED.items():
        plain = plain.replace(accented, meant)
    return "".join(
        character for character in unicodedata.normalize("NFKD", plain) if not unicodedata.combining(character)
    )


def _whole(words: str) -> re.Pattern[str]:
    return re.compile(rf"\b{_any([words])}(?!\w)")


def _any(patterns: Iterable[str]) -> str:
    return f"(?:{'|'.join(map(_spaced, patterns))})"


def _spaced(pattern: str) -> str:
    return pattern.replace(" ", r"\s+")


def _name(names: Mapping[str, str], text: str | None) -> str:
    """Return the name whose words a text has; the empty one when it has none of them."""
    return next((name for name, words in names.items() if re.search(rf"\b{_any([words])}(?!\w)", text or "")), "")
