"""Reads from an English question the event that it counts time from: "before she moved to Lisbon".

An event is told by a clause with a verb of the past, or by "moving to Lisbon". What only names a thing ("after the
accident") or a habit ("when she is tired") is none, and where this is in doubt there is none either.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_MARK: Final = re.compile(r"\b(before|after|since|until|till|when|while)\s+", re.IGNORECASE)
#: Where a clause ends: at punctuation, or where the question itself begins behind it.
_END: Final = re.compile(
    r"[,;:?!\n]|\.(?:\s|$)"
    r"|\s(?:what|where|who|whom|whose|which|why|how|when)\s+(?:else\s+)?(?:did|do|does|was|were|is|are|has|have|had)\b",
    re.IGNORECASE,
)
_WORD: Final = re.compile(r"[\w'-]+")
#: Characters that are looked through for the end of a clause; one without an end in them is too long to tell an event.
_REACH: Final = 400
#: A clause has as many words at most, and its subject as many.
_LONGEST: Final = 30
_SUBJECT: Final = 5

#: What stands before a noun: "the failed exam" tells of a thing and "the engine failed" of an event.
_DETERMINERS: Final = frozenset(
    ("a", "an", "the", "this", "that", "these", "those", "my", "your", "his", "her", "its", "our", "their", "some")
)
#: Behind "when" and "since" these make a question, and no clause.
_NO_SUBJECT: Final = frozenset(
    (
        *("am", "are", "can", "could", "did", "do", "does", "had", "has", "have", "is", "may", "might", "must"),
        *("shall", "should", "was", "were", "will", "would"),
        *("how", "what", "when", "where", "which", "who", "whom", "whose", "why"),
    )
)
_NO: Final = frozenset(("no", "not", "never", "nobody", "nothing"))
#: A verb of the present: what is so "when she is tired" is no event.
_PRESENT: Final = frozenset(
    (
        *("am", "are", "can", "could", "do", "does", "is", "may", "might", "must", "shall", "should", "will", "would"),
        *("he's", "she's", "it's", "i'm", "we're", "you're", "they're"),
    )
)
_BE: Final = frozenset(("was", "were"))
_HAVE: Final = frozenset(("has", "have", "had", "having"))
#: These last: "when she lived in Rome" is no day.
_LASTING: Final = frozenset(
    (
        *("believed", "felt", "had", "hated", "kept", "knew", "liked", "lived", "loved", "needed", "owned", "played"),
        *("slept", "stayed", "studied", "taught", "thought", "wanted", "wore", "worked"),
    )
)
_IRREGULAR: Final = frozenset(
    (
        *("ate", "became", "began", "bent", "bit", "bought", "broke", "brought", "built", "came", "caught", "chose"),
        *("cut", "did", "drank", "drew", "drove", "dug", "fed", "fell", "felt", "fled", "flew", "forgot", "fought"),
        *("found", "froze", "gave", "got", "grew", "had", "heard", "held", "hid", "hit", "hung", "hurt", "kept"),
        *("knew", "laid", "led", "left", "lent", "lost", "made", "met", "paid", "put", "quit", "ran", "rang", "read"),
        *("rode", "said", "sang", "sat", "saw", "sent", "set", "shook", "shot", "slept", "sold", "spent", "spoke"),
        *("stole", "stood", "struck", "swam", "taught", "thought", "threw", "told", "took", "tore", "understood"),
        *("went", "withdrew", "woke", "won", "wore", "wrote"),
    )
)
_PARTICIPLES: Final = frozenset(
    (
        *("been", "begun", "born", "broken", "chosen", "come", "done", "drawn", "driven", "eaten", "fallen", "flown"),
        *("forgotten", "given", "gone", "gotten", "grown", "hidden", "known", "ridden", "run", "seen", "shaken"),
        *("spoken", "stolen", "taken", "thrown", "torn", "withdrawn", "woken", "worn", "written"),
    )
)
_NO_PAST: Final = frozenset(
    (
        *("bleed", "breed", "embed", "exceed", "feed", "hundred", "indeed", "kindred", "naked", "need", "proceed"),
        *("sacred", "seed", "shed", "sled", "speed", "succeed", "unused", "used", "weed", "wicked"),
    )
)
_NO_GERUND: Final = frozenset(
    (
        *("anything", "being", "bring", "during", "evening", "everything", "king", "morning", "nothing", "ring"),
        *("sibling", "something", "spring", "sting", "string", "swing", "thing", "wedding", "wing"),
    )
)
_SHORTEST_PAST: Final = 4
_SHORTEST_GERUND: Final = 5


class Side(StrEnum):
    """On which side of the event the time is that is asked about."""

    BEFORE = "before"
    AFTER = "after"
    DURING = "during"


_SIDES: Final = {
    "before": Side.BEFORE,
    "until": Side.BEFORE,
    "till": Side.BEFORE,
    "after": Side.AFTER,
    "since": Side.AFTER,
    "when": Side.DURING,
    "while": Side.DURING,
}


@dataclass(frozen=True, slots=True)
class Event:
    """An event that a question names, in the question's words, and the side of it that is asked about."""

    words: str
    side: Side


def asked_event(question: str) -> Event | None:
    """Return the first event that a question counts time from, None when it surely names none."""
    for mark in _MARK.finditer(question):
        side = _SIDES[mark[1].lower()]
        reach = mark.end() + _REACH
        end = _END.search(question, mark.end(), reach)
        if end is None and reach < len(question):
            continue
        ends = end.start() if end else len(question)
        clause = question[mark.end() : ends]
        # Without a word beside it the clause is the whole question: "when Tom moved?".
        asks = _WORD.search(question, 0, mark.start()) or _WORD.search(question, ends)
        if asks and _tells_an_event(_WORD.findall(clause.lower().replace("’", "'")), side):
            return Event(" ".join(clause.split()), side)
    return None


def _tells_an_event(words: list[str], side: Side) -> bool:
    if not 2 <= len(words) <= _LONGEST or words[0] in _NO_SUBJECT:
        return False
    if side is not Side.DURING and _is_gerund(words[0]):
        return True
    for at in range(1, min(len(words), _SUBJECT + 1)):
        if words[at] in _NO or words[at] in _PRESENT or words[at].endswith("n't"):
            return False
        before, word, behind = words[at - 1], words[at], words[at + 1] if at + 1 < len(words) else ""
        if word in _BE or (word in _HAVE and is_past(behind)):
            # "She was promoted", "she had moved": what she was without a verb lasts.
            return is_past(behind) and behind not in _LASTING
        if is_past(word) and before not in _DETERMINERS and not before.endswith("'s"):
            return side is not Side.DURING or word not in _LASTING
    return False


def is_past(word: str) -> bool:
    """Whether a word in small letters is a verb of the past, or a participle, as far as its form tells."""
    if word in _IRREGULAR or word in _PARTICIPLES:
        return True
    return word.endswith("ed") and len(word) >= _SHORTEST_PAST and word not in _NO_PAST


def _is_gerund(word: str) -> bool:
    return word.endswith("ing") and len(word) >= _SHORTEST_GERUND and word not in _NO_GERUND
