"""What a memory's neighbours add to it: those that were stored just before and after it for the same subjects.

Of a conversation that is kept turn by turn, the answer often stands beside the turn that has the words of the question.
Whether that holds here is judged in each search: the memories beside the best hits must be nearer to the question than
those some steps away. Facts that were stored in no order of their own fail that, and then neighbours add nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

#: Hits whose surroundings are looked at.
SEEDS: Final = 10
#: Steps from a seed: near ones, and those that they are compared with.
NEAR: Final = (1, 2)
FAR: Final = (5, 6, 7)
_STEPS: Final = (0, *(sign * step for step in (*NEAR, *FAR) for sign in (-1, 1)))


def surroundings(strongest: Iterable[int]) -> frozenset[int]:
    """Return the places to look at around the places of the best hits."""
    return frozenset(place + step for place in strongest for step in _STEPS)
