"""How much of the evidence a context of 500 tokens covers: composed by the service, and the plain best hits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, Final

import httpx

TOKENS: Final = 500
_CHARACTERS: Final = 4
#: Hits that the plain context is filled from: as many as the service chooses from.
_HITS: Final = 41


class Contexts:
    """Asks for both contexts of a question and keeps what they covered."""

    def __init__(self, client: Any, url: str, api_key: str) -> None:
        self._client = client
        self._http = httpx.Client(base_url=url, headers={"Authorization": f"Token {api_key}"}, timeout=60)
        self._covered: list[tuple[float, float]] = []

    def ask(self, user: str, question: str, evidence: frozenset[str], turns: Mapping[str, Sequence[str]]) -> None:
        """Ask for both; `turns` are the turns that have a text."""
        body = {"user_id": user, "query": question, "max_tokens": TOKENS}
        answer = self._http.post("/tools/get_user_context", json=body).raise_for_status().json()
        found = self._client.search(question, filters={"user_id": user}, top_k=_HITS)["results"]
        both = (answer["context_snippets"], filling(hit["memory"] for hit in found))
        composed, plain = (_share(evidence, texts, turns) for texts in both)
        self._covered.append((composed, plain))

    def result(self) -> dict[str, Any]:
        """Return the mean shares of the evidence."""
        composed, plain = zip(*self._covered, strict=True)
        return {"tokens": TOKENS, "composed": round(fmean(composed), 4), "plain_top_k": round(fmean(plain), 4)}


def filling(texts: Iterable[str]) -> list[str]:
    """Return the first texts that fit into the budget, a line each."""
    room, taken = TOKENS * _CHARACTERS, []
    for text in map(on_one_line, texts):
        room -= len(text) + 1
        if room < 0:
            break
        taken.append(text)
    return taken


def on_one_line(text: str) -> str:
    """Return a text as it stands in a context."""
    return " ".join(text.split())


def _share(evidence: frozenset[str], texts: Iterable[str], turns: Mapping[str, Sequence[str]]) -> float:
    covered = {turn for text in texts for turn in turns.get(text, ())}
    return len(evidence & covered) / len(evidence)
