"""A scripted embedding model of several languages: words that mean the same lie in the same direction."""

from __future__ import annotations

import re
from typing import Final

from tests.llm.embeddings import ScriptedEmbeddings

#: What words mean, whatever their language.
_MEANINGS: Final = {
    "living": "live lives wohnt wohnen vive viven habite habitent",
    "house": "house houses where haus häuser wo casa casas dónde maison maisons où",
    "river": "river fluss río rivière",
    "animal": "animal pet pets cat cats tier haustier katze katzen animal gato gatos chat chats",
    "eating": "eat eats food isst essen fleisch come comida carne mange viande",
    "travel": "train trains travels zug züge reist tren viaja train trains voyage",
}
_MEANING_OF: Final = {word: meaning for meaning, words in _MEANINGS.items() for word in words.split()}


class MultilingualEmbeddings(ScriptedEmbeddings):
    """The server. Texts are alike by what their words mean; words that it does not know count for nothing."""

    def _vector(self, text: str) -> list[float]:
        vector = [0.01] * self.dimensions
        for word in re.findall(r"\w+", text.lower()):
            if meaning := _MEANING_OF.get(word):
                vector[list(_MEANINGS).index(meaning)] += 1.0
        return vector
