"""Finds the seasons, holidays, quarters, decades and counted weekdays that an English text names.

Many of them are names and things as well: "Summer said", "the Christmas song", "the Audi Q3". Where that is in doubt
there is none, and none where what is told is so each year: "What does she do in the summer?".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Final

from service.memories.english_tenses import Tense
from service.memories.english_words import (
    ALONE,
    ENDS,
    NAMED_SO,
    NO_PART,
    NUMBER,
    OF_SOMEBODY,
    OF_YEAR,
    OPEN_WORDS,
    SIDES,
    THE,
    WEEKDAY,
    behind,
    counted,
    said,
    tells_a_habit,
    tense_of,
)
from service.memories.time_words import WHOLE, Named
from service.memories.weekdays import THIS_WEEKEND, WEEKEND
from service.memories.year_parts import SEASONS

_SEASON: Final = f"(?:{'|'.join(SEASONS)})"
_NTH: Final = {"first": 1, "second": 2, "third": 3, "fourth": 4, "last": 4, "1st": 1, "2nd": 2, "3rd": 3, "4th": 4}
_HOLIDAY: Final = (
    r"(?:christmas(?:\s+(?:eve|day|holidays?|break)|\s?time)?|boxing\s+day|new\s+year['’]?s\s+(?:eve|day)|halloween"
    r"|valentine['’]?s\s+day)"
)
_QUARTER: Final = rf"(?:q[1-4]|(?:{'|'.join(_NTH)})\s+quarter)"
_YEAR: Final = r"(?:19|20)\d\d(?![.:]?\d)"
_OF_THAT_YEAR: Final = r"(?=,?\s+(?:of\s+|in\s+)?(?:last|this|next)\s+year\b)"
_THAT_YEAR: Final = re.compile(r"\b(?:last|this|next)\s+year,?\s+\Z", re.IGNORECASE)
_LEAD: Final = (
    r"\b(?:(?P<side>before|prior\s+to|until|till|up\s+to|after|since|in|on|at|over|during|of|by|from|between|to|through"
    r"|and)\s+)?(?P<the>the\s+)?(?:(?:early|mid|late)[\s-]+)?"
)
#: A text in small letters without any of these names none, and is not looked through.
_HINT: Final = re.compile(
    rf"\b(?:{_SEASON}|fall|christmas|new\s+year|boxing|halloween|valentine|q[1-4]|h[12]|quarter|half|weekend"
    rf"|{WEEKDAY}s?\s+(?:ago|before\s+last)|(?:\d\d)?\d0['’]?s|fifties|sixties|seventies|eighties|nineties)"
)
#: "Three Fridays ago", "two summers ago", "the weekend before last".
_COUNTED: Final = re.compile(
    rf"""{_LEAD}(?:
      {WHOLE}{NO_PART}(?<!\bor\s)(?<!\bto\s)(?<!\band\s)(?P<count>{NUMBER})\s+
        (?P<kind>{WEEKDAY}|weekend|{_SEASON}|quarter|christmas(?=es))(?:e?s)?\s+ago
    | (?P<but_one>{WEEKDAY}|weekend|{_SEASON}|fall|christmas)\s+before\s+last{ALONE}
    )\b""",
    re.IGNORECASE | re.VERBOSE,
)
#: "Last summer", "this Christmas", "next winter", "last quarter", "this weekend".
_NEAR: Final = re.compile(
    rf"""{_LEAD}(?:(?P<which>last|this\s+past|past|this|next)\s+)
    (?P<kind>{_SEASON}|fall|{_HOLIDAY}|quarter|weekend)(?!\s+of\b){ALONE}""",
    re.IGNORECASE | re.VERBOSE,
)
#: "In the summer of 2023", "in winter 2022/23", "Q3 2024", "H2 2024".
_DATED: Final = re.compile(
    rf"""{_LEAD}(?:(?P<kind>{_SEASON}|fall|{_HOLIDAY}|{_QUARTER}|h[12]){OF_YEAR}(?P<year>{_YEAR})
      (?:\s?[/\u2013-]\s?(?P<till>(?:20)?\d\d))?
    | (?P<its_year>{_YEAR})[\s/-]+(?P<its_kind>q[1-4]))(?![\w.]*\d)\b""",
    re.IGNORECASE | re.VERBOSE,
)
#: "In the summer", "on Christmas Day", "between Q1 and Q3".
_BARE: Final = re.compile(
    rf"""{_LEAD}(?P<kind>{_SEASON}|{_HOLIDAY}|{_QUARTER}|weekend)
    (?:(?P<of_year>{_OF_THAT_YEAR})|{NAMED_SO}(?!\s+of\b)(?!,?\s+(?:the\s+)?\d){ALONE})""",
    re.IGNORECASE | re.VERBOSE,
)
_DECADE: Final = re.compile(
    rf"""{_LEAD}(?:(?P<whole>(?:19\d|20[1-9])0)['’]?s | ['’]?(?P<short>[5-9])0['’]?s
    | (?P<word>fifties|sixties|seventies|eighties|nineties))(?!\s+of\b){ALONE}""",
    re.IGNORECASE | re.VERBOSE,
)
_DECADES: Final = {"fifties": 5, "sixties": 6, "seventies": 7, "eighties": 8, "nineties": 9}
#: Behind these each is a time: a season in it, a holiday on it, a weekend at it.
_AT: Final = {
    **dict.fromkeys(SEASONS, ("in", "during", "over")),
    **dict.fromkeys(("q1", "q2", "q3", "q4"), ("in", "during")),
    WEEKEND: ("on", "at", "over", "during"),
}
_ON_HOLIDAYS: Final = ("on", "at", "over", "during")
_OF_FALLS: Final = frozenset({"in", "during", "after", *OPEN_WORDS})
#: What is counted in tens too: "the temperature was in the 80s".
_MEASURED: Final = re.compile(
    r"\b(?:temperatures?|degrees?|fahrenheit|celsius|weather|warm|hot|cold|heat|highs?|lows?|humidity|scor\w+|grades?"
    r"|marks?|points|rate|pulse|pressure|bpm|sugar|glucose|oxygen|saturation|weigh\w*|kilos?|pounds?|iq|percent\w*"
    r"|speed|mph|kmh|averag\w*|prices?|cost\w*|streets?|rooms?|pages?|age|aged?)\b",
    re.IGNORECASE,
)
#: What has numbers of its own: questions, parts of a game, cars.
_ASKED: Final = re.compile(
    r"\b(?:answer\w*|exam|questions?|questionnaire|quiz|survey|test|game|match|audi)\b", re.IGNORECASE
)
#: Before "Q3 2024" these make a car, or another year, of it.
_A_THING: Final = re.compile(r"(?:\b(?:an?|audi|fiscal|my|your|his|her|its|our|their)|['’]s)\s+\Z", re.IGNORECASE)
#: "When did she last fall?", "did my mother last summer in Rome?".
_LAST_TIME: Final = re.compile(
    r"\b(?:did|does|do|has|have|had)\s+(?:(?:the|my|your|his|her|its|our|their)\s+)?(?!happen\b|change\b)\w+\s+\Z",
    re.IGNORECASE,
)
_ANYBODYS: Final = re.compile(r"\b(?:my|your|his|her|its|our|their)\s+\Z", re.IGNORECASE)
_SURNAME: Final = re.compile(r"\b(?:[A-Z]\w*|(?i:mr|mrs|ms|miss|dr|frau|herrn?|familie|mevrouw|meneer)\.?)\s+\Z")
#: Matches of one pattern that may be times.
_MOST: Final = 64


def english_seasons(text: str) -> Iterator[Named]:
    """Yield the times that a text names, with sides as those of `english_times`; some of them may overlap."""
    if _HINT.search(text.lower()) is None:
        return
    for pattern, read in (
        (_COUNTED, _counted),
        (_NEAR, _near),
        (_DATED, _dated),
        (_BARE, _bare),
        (_DECADE, _decade),
    ):
        for match in islice(pattern.finditer(text), _MOST):
            yield from read(match, text)


def _counted(match: re.Match[str], text: str) -> Iterator[Named]:
    if match["count"]:
        yield _time(match, f"{counted(match['count'])} {_plain(match['kind'])} ago")
    else:
        yield _time(match, f"2 {_plain(match['but_one'])} ago")


def _near(match: re.Match[str], text: str) -> Iterator[Named]:
    which, kind, start = " ".join(match["which"].lower().split()), _plain(match["kind"]), match.start("which")
    if match["the"] or any(behind(words, text, start) for words in (THE, OF_SOMEBODY, _ANYBODYS)):
        return
    if match["which"][0].isupper() and text[:start].rstrip()[-1:] not in ("", ".", "?", "!"):
        # A song and a film.
        return
    if which in ("last", "next") and (behind(_LAST_TIME, text, start) or kind == WEEKEND):
        # `english_times` knows the last weekend, and the next one may be either of two.
        return
    if match["kind"].lower() == "fall" and which not in ("last", "next"):
        # "Does this fall under the warranty?"
        return
    if which in ("last", "past", "this past"):
        yield _time(match, f"1 {kind} ago")
    elif which == "next":
        yield _time(match, f"next {kind}")
    elif kind == "quarter":
        yield _time(match, "0 quarter ago")
    else:
        coming = tense_of(text, match.start(), match.end(), noted=False) is not Tense.WAS
        yield _time(match, THIS_WEEKEND if kind == WEEKEND else kind)._replace(coming=coming)


def _dated(match: re.Match[str], text: str) -> Iterator[Named]:
    written = (match["kind"] or match["its_kind"]).lower()
    kind, year, till, words = _plain(written), int(match["year"] or match["its_year"]), match["till"], said(match)
    numbered = kind in ("q1", "q2", "q3", "q4", "first half", "second half")
    if numbered and (_ASKED.search(text) or behind(_A_THING, text, match.start())):
        return
    # "A 2024 Q3", "did she watch Halloween 2018?", "a Donna Summer 1977 album".
    other = match["its_year"] is not None or written in ("halloween", "h1", "h2")
    if not words and not match["the"] and (other or behind(_SURNAME, text, match.start())):
        return
    if written == "fall" and words not in _OF_FALLS:
        # "Did prices fall 2023?"
        return
    one = _time(match, f"{kind} {year}")
    if kind == "winter" and till is None:
        # It may be the one that ends in the year, and the one that begins in it.
        if not one.side:
            yield one._replace(end=one.start, time=f"winter {year - 1}")
            yield one
    elif till is None or (kind == "winter" and int(till) % 100 == (year + 1) % 100):
        yield one


def _bare(match: re.Match[str], text: str) -> Iterator[Named]:
    kind, words = _plain(match["kind"]), said(match)
    one = _time(match, kind)
    if match["of_year"] is not None or behind(_THAT_YEAR, text, one.start):
        # Which winter is meant, the year beside it does not tell.
        if kind not in ("winter", WEEKEND):
            yield one
        return
    if " quarter" in match["kind"].lower() or tells_a_habit(text, one.start, one.end):
        return
    at = _AT.get(kind, _ON_HOLIDAYS)
    somebody = kind in SEASONS and match["kind"][0].isupper() and not match["the"] and words not in at
    if somebody or (kind.startswith("q") and _ASKED.search(text)):
        return
    if kind == WEEKEND and (words not in at or not match["the"]):
        return
    tense = tense_of(text, one.start, one.end, noted=words in ("on", "over"))
    if words in ENDS:
        yield one._replace(coming=tense is Tense.WILL)
    elif words == "since":
        yield one
    elif (words in at or words in OPEN_WORDS or words == "after") and tense in (Tense.WAS, Tense.WILL):
        yield one._replace(time=THIS_WEEKEND if kind == WEEKEND else kind, coming=tense is Tense.WILL)


def _decade(match: re.Match[str], text: str) -> Iterator[Named]:
    if not match["the"] or said(match) not in _OF_FALLS:
        return
    if match["whole"]:
        yield _time(match, f"{match['whole']}s")
    elif not _MEASURED.search(text):
        yield _time(match, f"19{match['short'] or _DECADES[match['word'].lower()]}0s")


def _time(match: re.Match[str], time: str) -> Named:
    return Named(match.start(), match.end(), SIDES.get(said(match), ""), time)


def _plain(kind: str) -> str:
    """Return the name that `year_parts` has for what a text says."""
    words = " ".join(kind.lower().replace("’", "'").split())
    if words.endswith(" quarter"):
        return f"q{_NTH[words.split()[0]]}"
    words = re.sub(r"^(new year|valentine)s? ", r"\1's ", words)
    if words in ("h1", "h2"):
        return "first half" if words == "h1" else "second half"
    if re.fullmatch(r"christmas (?:holidays?|break)", words):
        return "christmas holidays"
    return {"fall": "autumn", "christmas time": "christmas", "christmastime": "christmas"}.get(words, words)
