"""Each word of the tables of times is reached by a question: what a table names and no pattern takes would be dead."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest

from service.memories.asked_times import asked_time
from service.memories.time_tables import TIME_WORDS
from service.settings.languages import Language

pytestmark = pytest.mark.unit

TODAY = date(2026, 11, 26)


@pytest.mark.parametrize("language", TIME_WORDS)
def test_each_word_of_a_language_is_reached(language: Language) -> None:
    words = TIME_WORDS[language]
    for month, patterns in enumerate(zip(words.months, words.short, strict=True), 1):
        for name in said("|".join(patterns)):
            assert first_day(f"{name} 2025", language) == date(2025, month, 1), name
    for name in said("|".join(words.months)):
        assert first_day(f"3{said(words.ordinal)[-1]} {name}", language).day == 3, name
    for kind, unit in words.units.items():
        for number, pattern in enumerate(words.numbers, 1):
            for question in said(words.ago.format(number=f"(?:{pattern})", unit=f"(?:{unit})")):
                assert asked_time(question, TODAY, language) == asked_time(f"{number} {kind}s ago", TODAY), question
    for length, pattern in words.lengths.items():
        for question in said(words.ago.replace("{number} {unit}", f"(?:{pattern})")):
            assert asked_time(question, TODAY, language) == asked_time(f"{length} ago", TODAY), question
    for either in said(words.either):
        question = said(words.ago.format(number=f"2 {either} 3", unit=f"(?:{words.units['week']})"))[0]
        assert asked_time(question, TODAY, language) == asked_time("2 or 3 weeks ago", TODAY), question
    for kind, unit in {**words.one, **words.weekdays}.items():
        for question in said(words.before_last.format(one=f"(?:{plain(unit)})")):
            assert asked_time(question, TODAY, language).spans == asked_time(f"the {kind} before last", TODAY).spans, (
                question
            )
        for english, pattern in (("last", words.last), ("this", words.this), ("next", words.next)):
            for question in said(pattern.format(one=f"(?:{plain(unit)})")):
                assert asked_time(question, TODAY, language).spans == asked_time(f"{english} {kind}", TODAY).spans, (
                    question
                )
    for english, pattern in words.days.items():
        for question in said(plain(pattern)):
            assert asked_time(question, TODAY, language).spans == asked_time(english, TODAY).spans, question


@pytest.mark.parametrize("language", TIME_WORDS)
@pytest.mark.parametrize("side", ["before", "since", "after"])
def test_each_word_for_a_side_is_reached(language: Language, side: str) -> None:
    words = TIME_WORDS[language]
    for way in said(getattr(words, side)):
        for english, time in (
            ("March", words.months[2].split("|")[0]),
            ("2025-03-03", "2025-03-03"),
            ("2025-03-03", "3/3/2025"),
            ("2024", "2024"),
        ):
            assert asked_time(f"{way} {time}", TODAY, language).spans == asked_time(f"{side} {english}", TODAY).spans, (
                way
            )


def first_day(question: str, language: Language) -> date:
    """The first day of the one time that a question names."""
    ((begins, _),) = asked_time(question, TODAY, language).spans
    return begins.date()


def plain(pattern: str) -> str:
    """A pattern without what must, or must not, follow."""
    return re.sub(r"\|?\(\?[!=].*?\)", "", pattern)


def said(pattern: str) -> list[str]:
    """All ways to say what a pattern takes, of those that are made of choices, of sets and of what may be left out."""
    return sorted({"".join(way) for way in _ways(re._parser.parse(pattern))})  # type: ignore[attr-defined]


def _ways(parsed: Any) -> Iterator[tuple[str, ...]]:
    yield from (tuple(itertools.chain(*parts)) for parts in itertools.product(*(list(_way(*one)) for one in parsed)))


def _way(kind: Any, what: Any) -> Iterator[tuple[str, ...]]:
    match str(kind), what:
        case "LITERAL", code:
            yield (chr(code),)
        case "IN", codes:
            yield from ((chr(code),) for _, code in codes)
        case "BRANCH", (_, branches):
            for branch in branches:
                yield from _ways(branch)
        case "SUBPATTERN", (*_, inner):
            yield from _ways(inner)
        case "MAX_REPEAT", (least, _, inner):
            if least == 0:
                yield ()
            yield from _ways(inner)
        case other:
            raise NotImplementedError(other)
