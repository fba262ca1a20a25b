"""The figures of docs/languages.md hold: what the built-in model finds in four languages, alone and with words."""

from __future__ import annotations

import pytest

from bench.languages import Found, measure
from bench.phrases import FACTS, QUESTIONS, lines
from service.settings.languages import Language
from tests.conftest import MakeServices
from tests.docs.pages import table

pytestmark = pytest.mark.integration


def first(ranks: object) -> int:
    """How many of the right facts came first."""
    return list(ranks).count(1)  # type: ignore[call-overload]


def test_words_of_the_language_make_up_for_much_and_cannot_for_another_language(make_services: MakeServices) -> None:
    assert all(len(lines(FACTS[one])) == 50 and len(lines(QUESTIONS[one])) == 10 for one in FACTS)
    english, *others, across = measure(make_services())
    assert first(english.meaning) >= 9
    for one in others:
        assert first(one.meaning) <= 7, one.stored
        assert first(one.own_words) > max(first(one.meaning), first(one.english_words)), one.stored
        assert first(one.own_words) >= 7, one.stored
    assert (across.asked, across.stored) == (Language.ENGLISH, Language.GERMAN)
    assert first(across.own_words) <= 2
    # The page has these rows. The last digits may differ between processors.
    shown = [(row["questions"], row["facts"]) for row in table("docs/languages.md", "questions")]
    assert shown == [_names(one) for one in (english, *others, across)]


def _names(found: Found) -> tuple[str, str]:
    return found.asked.value.capitalize(), found.stored.value.capitalize()
