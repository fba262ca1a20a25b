"""Takes texts apart into the words of a language, by the tokenisers, stemmers and stop words of Qdrant."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Final

from qdrant_edge import Bm25, Bm25Config, DisabledStemmer, SparseVector, StopwordsSet, TokenizerType

from service.settings.languages import Language

#: Languages whose words are not set apart by spaces: a dictionary finds them.
_UNSPACED: Final = frozenset({Language.CHINESE, Language.JAPANESE, Language.MULTILINGUAL})
#: Two Japanese stop words, in the script by which the tokeniser knows that the characters beside it are Japanese.
_JAPANESE: Final = "これは "
_KANA: Final = re.compile(r"[\u3040-\u30ff]")
_NUMBER: Final = re.compile(r"(?<![A-Za-z\d])\d+(?![A-Za-z\d])")
_HAN: Final = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")


class Words:
    """The words of one language as unkeyed BM25 terms. Safe for many threads."""

    def __init__(self, language: Language, *, average_length: float) -> None:
        self._language = language
        self._model = Bm25(_config(language, average_length))

    def document(self, text: str) -> SparseVector:
        """Return the words of a stored text, weighted by how often they stand there."""
        return self._model.embed_document(self._prepared(text))

    def query(self, text: str) -> list[int]:
        """Return each word of a search text once."""
        prepared = self._prepared(text)
        found = list(self._model.embed_query(prepared).indices)
        if self._language is Language.MULTILINGUAL and _HAN.search(text) and not _KANA.search(text):
            # A few characters alone may be Chinese or Japanese, whose words end in different places.
            known = {*found, *self._model.embed_query(_JAPANESE).indices}
            found += [word for word in self._model.embed_query(_shown(prepared)).indices if word not in known]
        return found

    def _prepared(self, text: str) -> str:
        # The tokeniser ends a word at an accent of its own: "ü" in two characters makes "gr" and "n" of "grün".
        text = unicodedata.normalize("NFC", text)
        if self._language not in _UNSPACED:
            return text
        # The tokeniser leaves numbers out, so they are written as words.
        worded = _NUMBER.sub(lambda number: f" {_lettered(number[0])} ", text)
        return _shown(worded) if self._language is Language.JAPANESE else worded


@cache
def words_of(language: Language, average_length: float) -> Words:
    """Return the words of a language; one object serves all tenants."""
    return Words(language, average_length=average_length)


def _lettered(number: str) -> str:
    """Return a number as a word that no language has."""
    return "qz" + "".join("abcdefghij"[int(digit)] for digit in number)


def _shown(text: str) -> str:
    """Return the text with what makes it Japanese for the tokeniser, which else takes characters alone for Chinese.

    It goes by what most of the text is, so a text in Latin letters needs more than as much beside it.
    """
    return f"{text}\n{_JAPANESE * (2 * len(text) // len(_JAPANESE) + 1)}"


def _config(language: Language, average_length: float) -> Bm25Config:
    if language is Language.MULTILINGUAL:
        nothing = StopwordsSet(languages=set(), custom=set())
        return Bm25Config(
            avg_len=average_length,
            tokenizer=TokenizerType.Multilingual,
            stemmer=DisabledStemmer(),
            stopwords=nothing,
        )
    if language in _UNSPACED:
        return Bm25Config(avg_len=average_length, language=language.value, tokenizer=TokenizerType.Multilingual)
    return Bm25Config(avg_len=average_length, language=language.value)
