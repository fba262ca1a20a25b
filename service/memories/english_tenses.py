"""Reads in which tense an English question speaks of a time: of what was, of what is to come, or of what is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Final

from service.memories.asked_events import is_past

_WORD: Final = re.compile(r"[\w'-]+|[.?!;]")
#: What begins a clause with a verb of its own.
_CLAUSES: Final = frozenset(
    (
        *(".", "?", "!", ";", "because", "but", "how", "if", "that", "what", "when", "where", "whether", "which"),
        *("while", "who", "whom", "whose", "why"),
    )
)
_WAS: Final = frozenset(("did", "didn't", "had", "hadn't", "was", "wasn't", "were", "weren't"))
_WILL: Final = frozenset(("shall", "will", "won't"))
_IS: Final = frozenset(
    (
        *("am", "are", "aren't", "can", "can't", "cannot", "could", "do", "does", "doesn't", "don't", "i'm", "is"),
        *("isn't", "it's", "may", "might", "must", "should", "that's", "there's", "they're", "we're", "would"),
        *("you're", "he's", "she's"),
    )
)
#: Of a meeting that is planned nobody knows yet whether it was.
_PLANNED: Final = frozenset(("arranged", "booked", "due", "expected", "needed", "planned", "scheduled", "set"))
#: Such a word is a noun behind an article: "her will", "the set".
_DETERMINERS: Final = frozenset(("a", "an", "the", "my", "your", "his", "her", "its", "our", "their"))
#: A verb that is looked for stands near; more words are not looked through.
_REACH: Final = 300


class Tense(StrEnum):
    """When what is asked about is: "is" stands for habits, plans and all that leaves it open."""

    WAS = "was"
    IS = "is"
    WILL = "will"


def tense_at(text: str, start: int, end: int) -> Tense | None:
    """Return the tense of the clause that the words from `start` to `end` stand in, None if it shows no verb.

    A clause with verbs of several tenses leaves open which of them the time belongs to.
    """
    before = [*_clauses(text[max(0, start - _REACH) : start])]
    behind = [*_clauses(text[end : end + _REACH])]
    for clause in (before[-1], *behind, *reversed(before[:-1])):
        tense = _tense(clause)
        if tense is not None:
            return tense
    return None


def _clauses(text: str) -> Iterator[list[str]]:
    clause: list[str] = []
    for word in _WORD.findall(text.replace("\u2019", "'")):
        opens = word.lower().removesuffix("'s").removesuffix("'ll")
        if opens in _CLAUSES:
            yield clause
            clause = []
        clause.append(word)
    yield clause


def _tense(clause: Sequence[str]) -> Tense | None:
    found: Tense | None = None
    words = [word.lower() for word in clause]
    for at, word in enumerate(words):
        before = words[at - 1] if at else ""
        # "Will" inside of a question is somebody's name.
        tense = None if before in _DETERMINERS or (at and clause[at] == "Will") else _of(word, found)
        if word == "going" and words[at + 1 : at + 2] == ["to"] and found is Tense.IS:
            return Tense.WILL
        if tense is not None and found is not None and tense is not found:
            return Tense.IS
        found = found or tense
    return found


def _of(word: str, found: Tense | None) -> Tense | None:
    if word in _WAS:
        return Tense.WAS
    if word in _WILL or word.endswith("'ll"):
        return Tense.WILL
    if word in _PLANNED:
        return found or Tense.IS
    if word in _IS or (word.endswith("'s") and word[:-2] in _CLAUSES):
        # "What did she do", "what will she do".
        return found if word == "do" and found is not None else Tense.IS
    # Behind another verb it is a participle, or the form of another one: "is invited", "will come".
    return Tense.WAS if found is None and is_past(word) else None
