"""How far what stands beside a memory lifts it; see `service.index.neighbours`."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.index.neighbours import FAR, NEAR, SEEDS

Floats = NDArray[np.float64]
Places = NDArray[np.int64]

#: What the strengths of the next and of the one after it add, on each side.
_BESIDE: Final = (0.25, 0.15)
#: What is left, each step further, of the strength of the strongest around.
_FADES: Final = 0.95
#: Steps after which nothing of it is left.
_FADED: Final = 1000
#: By how much the near ones must be stronger: up to the first nothing is added, from both together on all of it.
_LEAST: Final = 0.01
_ENOUGH: Final = 0.05


def lifts(places: Places, strengths: Floats) -> Floats:
    """Return what each candidate is given by its surroundings; nothing to one without a place (-1).

    Where two have one place, the stronger one is what stands there.
    """
    given = np.zeros(len(places))
    placed = np.flatnonzero(places >= 0)
    if len(placed) == 0:
        return given
    # By place, and of one place the strongest first.
    order = placed[np.lexsort((-strengths[placed], places[placed]))]
    at, first, which = np.unique(places[order], return_index=True, return_inverse=True)
    there = strengths[order][first]
    share = _share(at, there)
    if share > 0:
        beside = sum(
            weight * (_strengths_at(at, there, at - step)[0] + _strengths_at(at, there, at + step)[0])
            for step, weight in enumerate(_BESIDE, start=1)
        )
        given[order] = (share * (beside + _around(at, there)))[which]
    return given


def _share(at: Places, strengths: Floats) -> float:
    """Return how much of what neighbours could add is added, by how much stronger near ones are than far ones."""
    # Equal ones in the order of their places, so that the same search has the same answer.
    seeds = at[np.argsort(-strengths, kind="stable")[:SEEDS]]
    means = []
    for steps in (NEAR, FAR):
        wanted = seeds[:, np.newaxis] + np.array([*steps, *(-step for step in steps)])
        found, there = _strengths_at(at, strengths, wanted)
        if not there.any():
            return 0.0
        means.append(found.sum() / there.sum())
    near, far = means
    return float(min(max((near - far - _LEAST) / _ENOUGH, 0.0), 1.0))


def _strengths_at(at: Places, strengths: Floats, wanted: Places) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the strength at each wanted place, 0 where nothing was found, and whether something was."""
    index = np.minimum(np.searchsorted(at, wanted), len(at) - 1)
    there = at[index] == wanted
    return np.where(there, strengths[index], 0.0), there


def _around(at: Places, strengths: Floats) -> Floats:
    """Return for each place the greatest strength around, its own included, less with each step away."""
    steps = np.concatenate(([0], np.cumsum(np.minimum(np.diff(at), _FADED))))
    before = _carried(steps, strengths)
    behind = _carried(steps[-1] - steps[::-1], strengths[::-1])[::-1]
    # A strength of its own is kept to the last digit.
    around: Floats = np.maximum(strengths, np.maximum(before, behind))
    return around


def _carried(steps: NDArray[np.int64], strengths: Floats) -> Floats:
    """Return for each the greatest strength of those up to it, faded by the steps between.

    In logarithms a fade is a difference, so that one running maximum does for all.
    """
    faded = steps * -math.log(_FADES)
    with np.errstate(divide="ignore"):
        carried: Floats = np.exp(np.maximum.accumulate(np.log(strengths) + faded) - faded)
    return carried
