"""Made-up memories and queries, the same in every run: what is measured must not depend on somebody's data."""

from __future__ import annotations

from random import Random
from typing import Final

_PEOPLE: Final = ("Mira", "Jonas", "Aiko", "Tomás", "Leila", "Ravi", "Ingrid", "Kofi", "Elena", "Noah")
_SAYS: Final = ("told me that", "mentioned yesterday that", "remembers how", "is glad that", "wrote to say that")
_WHO: Final = ("her brother", "the neighbour", "a colleague", "their cousin", "the new manager", "an old friend")
_DOES: Final = (
    *("wants to learn to play the cello", "is moving to a smaller flat near the harbour", "paid the invoice twice"),
    *("prefers the early train on Mondays", "cannot eat anything with hazelnuts", "repairs bicycles at weekends"),
    *("is planning a hiking trip in the mountains", "keeps the spare key under the blue flowerpot"),
    *("has started to train for a half marathon", "reads crime novels set in cold countries"),
)
_WHEN: Final = ("since last spring", "before the summer holidays", "every second week", "after the meeting", "by now")
_WHY: Final = (
    "because the doctor advised it",
    "although nobody had asked for it",
    "which came as a surprise to everyone",
    "and hopes to finish it before winter",
)


def memory_text(number: int) -> str:
    """Return the memory of a number: one sentence of some twenty words, unlike that of any other number."""
    pick = Random(number).choice
    sentence = " ".join(map(pick, (_PEOPLE, _SAYS, _WHO, _DOES, _WHEN, _WHY)))
    return f"{sentence} (note {number})"


def query_text(number: int) -> str:
    """Return the query of a number: a question of some ten words."""
    pick = Random(-1 - number).choice
    return f"Who {pick(_DOES)} {pick(_WHEN)}, and what did {pick(_PEOPLE)} say about {pick(_WHO)}?"
