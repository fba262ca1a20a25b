"""What a memory's neighbours add to it: those that were stored just before and after it for the same subjects.

Of a conversation that is kept turn by turn, the answer often stands beside the turn that has the words of the question.
Whether that holds here is judged in each search: the memories beside the best hits must be nearer to the question than
those some steps away. Facts that were stored in no order of their own fail that, and then neighbours add nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from statistics import fmean
from typing import Final

#: Hits whose surroundings are looked at.
SEEDS: Final = 10
#: What the strengths of the next and of the one after it add, on each side.
_BESIDE: Final = (0.25, 0.15)
#: What is left, each step further, of the strength of the strongest around.
_FADES: Final = 0.95
#: Steps from a seed: near ones, and those that they are compared with.
_NEAR: Final = (1, 2)
_FAR: Final = (5, 6, 7)
_STEPS: Final = (0, *(sign * step for step in (*_NEAR, *_FAR) for sign in (-1, 1)))
#: By how much the near ones must be stronger: up to the first nothing is added, from both together on all of it.
_LEAST: Final = 0.01
_ENOUGH: Final = 0.05


def surroundings(strongest: Iterable[int]) -> frozenset[int]:
    """Return the places to look at around the places of the best hits."""
    return frozenset(place + step for place in strongest for step in _STEPS)


def added(strengths: Mapping[int, float], seeds: Collection[int]) -> dict[int, float]:
    """Return what each place is given by its surroundings, from the strength of each place that was found."""
    share = _share(strengths, seeds)
    if share == 0:
        return {}
    around = _around(strengths)
    given = {}
    for place in strengths:
        beside = sum(
            weight * (strengths.get(place - step, 0.0) + strengths.get(place + step, 0.0))
            for step, weight in enumerate(_BESIDE, start=1)
        )
        given[place] = share * (beside + around[place])
    return given


def _share(strengths: Mapping[int, float], seeds: Collection[int]) -> float:
    """Return how much of what neighbours could add is added, by how much stronger near ones are than far ones."""
    near, far = (
        [strengths[at] for seed in seeds for step in steps for at in (seed - step, seed + step) if at in strengths]
        for steps in (_NEAR, _FAR)
    )
    if not near or not far:
        return 0.0
    return min(max((fmean(near) - fmean(far) - _LEAST) / _ENOUGH, 0.0), 1.0)


def _around(strengths: Mapping[int, float]) -> dict[int, float]:
    """Return for each place the greatest strength around, its own included, less with each step away."""
    places = sorted(strengths)
    around = dict(strengths)
    for ordered in (places, places[::-1]):
        behind, carried = None, 0.0
        for place in ordered:
            if behind is not None:
                carried *= _FADES ** abs(place - behind)
            carried = max(carried, strengths[place])
            around[place] = max(around[place], carried)
            behind = place
    return around
