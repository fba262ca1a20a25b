"""The words of each language: inflections meet, and words without spaces between them are found."""

from __future__ import annotations

import unicodedata

import pytest
import qdrant_edge

from service.index.terms import Bm25Terms
from service.index.words import Words
from service.settings.languages import Language
from tests.languages import WORDS

pytestmark = pytest.mark.unit

KEY = bytes(range(32))


def common(language: Language, stored: str, asked: str) -> set[int]:
    """The terms that a stored text and a question have in common."""
    terms = Bm25Terms(KEY, language)
    return set(terms.document(stored).ids) & set(terms.query(asked).ids)


@pytest.mark.parametrize(("language", "stored", "asked"), WORDS)
def test_a_word_is_found_by_its_language_and_not_by_english(language: Language, stored: str, asked: str) -> None:
    assert common(language, stored, asked)
    assert not common(Language.ENGLISH, stored, asked)


def test_the_languages_are_those_of_the_engine() -> None:
    known = {name.lower() for name in dir(qdrant_edge.Language) if name[0].isupper()}
    assert known | {"multilingual"} == set(Language)
    assert all(Words(language, average_length=40.0).query("Rome") for language in Language)


@pytest.mark.parametrize("language", Language)
def test_numbers_are_words_in_every_language(language: Language) -> None:
    assert len(common(language, "born in 1984, flat 204", "1984 204")) == 2
    assert not common(language, "born in 1984", "1985")


@pytest.mark.parametrize("language", [Language.JAPANESE, Language.MULTILINGUAL])
def test_characters_alone_are_japanese_where_they_may_be(language: Language) -> None:
    """The tokeniser takes characters without kana beside them for Chinese, and takes 東京 apart."""
    assert common(language, "彼女は東京に住んでいます", "東京")
    assert common(language, "She moved to 東京 for work and takes the train to the office every single day", "東京")
    assert len(Bm25Terms(KEY, Language.JAPANESE).query("東京").ids) == 1
    assert Bm25Terms(KEY, language).document("She works").ids, "what makes it Japanese adds no word"
    assert len(Bm25Terms(KEY, language).query("hello").ids) == 1


@pytest.mark.parametrize("language", [Language.ENGLISH, Language.GERMAN, Language.HEBREW, Language.MULTILINGUAL])
def test_a_word_is_the_same_however_its_accents_are_encoded(language: Language) -> None:
    """What is copied from a macOS file name or a PDF has an accent as a character of its own."""
    composed, decomposed = (unicodedata.normalize(form, "grünem Tee in Zürich 서울에") for form in ("NFC", "NFD"))
    terms = Bm25Terms(KEY, language)
    assert terms.document(decomposed) == terms.document(composed)
    assert terms.query(decomposed) == terms.query(composed)


def test_numbers_stand_beside_characters_too() -> None:
    assert common(Language.JAPANESE, "お部屋は２０４号室です", "204")
    assert common(Language.CHINESE, "她住在204号房间", "204")
    assert common(Language.MULTILINGUAL, "1984年に生まれた", "1984")


def test_multilingual_takes_words_of_any_script_as_they_stand() -> None:
    for stored, asked in [
        ("彼女は緑茶が好きです", "緑茶"),
        ("她喜欢喝绿茶", "绿茶"),
        ("เธอชอบดื่มชาเขียว", "ชาเขียว"),
        ("Она любит старые книги", "КНИГИ"),
        ("Elle boit un café", "CAFE"),
        ("She lives in Rome", "rome"),
    ]:
        assert common(Language.MULTILINGUAL, stored, asked), asked
    assert not common(Language.MULTILINGUAL, "Sie hat zwei Häuser", "Haus"), "it has no stemmer"


def test_after_a_change_a_search_meets_the_words_of_both_languages() -> None:
    english, german = Bm25Terms(KEY), Bm25Terms(KEY, Language.GERMAN)
    both = Bm25Terms(KEY, Language.GERMAN, former=Language.ENGLISH)
    asked = "Which houses are alte Häuser?"
    assert set(both.query(asked).ids) == set(english.query(asked).ids) | set(german.query(asked).ids)
    assert set(both.query(asked).weights) == {1.0}
    assert both.document(asked) == german.document(asked)
