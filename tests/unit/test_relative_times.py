"""Words for a time that are left out of a question, since they mean another time in a memory that has them."""

from __future__ import annotations

from datetime import date

import pytest

from service.memories.asked_times import asked_time
from service.settings.languages import Language

THURSDAY = date(2026, 11, 26)


@pytest.mark.parametrize(
    ("question", "rest"),
    [
        ("What happened last week?", "What happened ?"),
        ("What  did Ann   say yesterday about the boat?", "What did Ann say about the boat?"),
        ("Where was she before last week?", "Where was she ?"),
        ("What did he do today?", "What did he do ?"),
        ("What did he buy this month?", "What did he buy ?"),
        ("What did she do on Monday?", "What did she do ?"),
        ("What did she do last weekend?", "What did she do ?"),
        ("What did she do the day before yesterday?", "What did she do ?"),
        ("What did she do two Mondays ago?", "What did she do ?"),
        ("What was said in last month's meeting?", "What was said meeting?"),
        ("What changed in the last 24 hours?", "What changed ?"),
        ("What did she do two weeks ago and three days ago?", "What did she do ?"),
    ],
)
def test_a_relative_time_is_left_out(question: str, rest: str) -> None:
    assert asked_time(question, THURSDAY).rest == rest


@pytest.mark.parametrize(
    "question",
    [
        "What did she do in May 2025?",
        "What did she do on Monday, May 5?",
        # These mean the same time in what was told in it.
        "What did she do last year?",
        "What did she do last summer?",
        # Of what is to come was told before, with these words.
        "What is planned for tomorrow?",
        "What is planned for next week?",
        # No time is understood, or nothing else is asked.
        "What does she do on Mondays?",
        "What has she done since she moved?",
        "Yesterday?",
    ],
)
def test_all_of_a_question_counts(question: str) -> None:
    assert asked_time(question, THURSDAY).rest == ""


@pytest.mark.parametrize(
    ("question", "language", "rest"),
    [
        ("Welche Größe hat Müller letzte Woche gekauft?", Language.GERMAN, "Welche Größe hat Müller gekauft?"),
        ("Was geschah vor drei Tagen in Köln?", Language.GERMAN, "Was geschah in Köln?"),
        ("¿Qué comió Peña ayer?", Language.SPANISH, "¿Qué comió Peña ?"),
        # An umlaut of two characters.
        ("Was kochte Mu\u0308ller gestern?", Language.GERMAN, "Was kochte Mu\u0308ller ?"),
    ],
)
def test_in_another_language_the_rest_is_as_it_was_written(question: str, language: Language, rest: str) -> None:
    assert asked_time(question, THURSDAY, language).rest == rest


def test_where_a_word_was_read_as_another_all_of_the_question_counts() -> None:
    """Dutch "before", of which the times are found behind longer words than were written."""
    asked = asked_time("Wat deed ze v\u00f3\u00f3r vorige week?", THURSDAY, Language.DUTCH)
    assert asked.spans
    assert asked.rest == ""
