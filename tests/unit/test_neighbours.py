"""What neighbours add: nothing where the order tells nothing, a lift beside the best where it is a conversation."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from statistics import fmean
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.index.candidates import NO_PLACE, Candidate, Candidates
from service.index.fusion import fuse
from service.index.lifts import lifts
from service.index.neighbours import FAR, NEAR, SEEDS, surroundings

pytestmark = pytest.mark.unit

PLACES = st.dictionaries(st.integers(0, 60), st.floats(0.0, 1.6), min_size=1)


def talk(peak: int, length: int = 60) -> dict[int, float]:
    """Strengths that fall with the distance from a peak."""
    return {place: max(1.0 - 0.12 * abs(place - peak), 0.1) for place in range(length)}


def added(strengths: Mapping[int, float]) -> dict[int, float]:
    """What is added at each place, where anything is."""
    places = np.array([*strengths], dtype=np.int64)
    given_ = lifts(places, np.array([*strengths.values()], dtype=np.float64))
    return {place: value for place, value in zip(strengths, given_.tolist(), strict=True) if value}


def test_beside_the_best_is_worth_more_than_far_away() -> None:
    given_ = added(talk(30))
    assert given_[30] > given_[32] > given_[36] > given_[55] > 0


def test_where_the_order_tells_nothing_nothing_is_added() -> None:
    strengths = dict.fromkeys(range(200), 0.1)
    strengths |= dict.fromkeys(range(5, 200, 20), 1.0)
    assert added(strengths) == {}
    assert added({7: 1.0}) == {}
    assert added({}) == {}


@given(PLACES, st.integers(0, 2**63))
def test_what_is_added_is_bounded_and_the_same_each_time(strengths: dict[int, float], seed: int) -> None:
    once = added(strengths)
    shuffled = list(strengths.items())
    Random(seed).shuffle(shuffled)
    assert added(dict(shuffled)) == once
    assert all(0 <= value <= 1.8 * max(strengths.values()) + 1e-9 for value in once.values())


@given(st.dictionaries(st.integers(0, 60) | st.integers(2**62, 2**62 + 60), st.floats(0.0, 1.6), min_size=1))
def test_what_is_added_is_what_the_decision_says(strengths: dict[int, float]) -> None:
    """The formula of decision 0011, written down one candidate after the other; lines lie far from each other."""
    seeds = sorted(strengths, key=lambda place: (-strengths[place], place))[:SEEDS]
    near, far = (
        [strengths[at] for seed in seeds for step in steps for at in (seed - step, seed + step) if at in strengths]
        for steps in (NEAR, FAR)
    )
    share = min(max((fmean(near) - fmean(far) - 0.01) / 0.05, 0.0), 1.0) if near and far else 0.0
    wanted = {
        place: share
        * (
            0.25 * (strengths.get(place - 1, 0.0) + strengths.get(place + 1, 0.0))
            + 0.15 * (strengths.get(place - 2, 0.0) + strengths.get(place + 2, 0.0))
            + max(value * 0.95 ** min(abs(place - other), 10_000) for other, value in strengths.items())
        )
        for place in strengths
    }
    assert added(strengths) == pytest.approx({place: value for place, value in wanted.items() if value}, abs=1e-9)


def test_a_gap_counts_as_steps() -> None:
    close = added(talk(30) | {200: 0.2})
    assert close[200] < close[50]


def test_places_around_are_asked_for() -> None:
    assert surroundings([100]) == {93, 94, 95, 98, 99, 100, 101, 102, 105, 106, 107}
    assert len(surroundings([100, 101])) < 22


def test_a_neighbour_rises_and_its_own_score_and_the_threshold_stay() -> None:
    candidates = [
        Candidate(UUID(int=1 + place), 1, value / 2, 0.0, place=place)
        for place, value in talk(30).items()
        if place != 31
    ]
    weak = Candidate(UUID(int=1000), 1, 0.06, 0.0, place=31)
    alone, together = (list(fuse(Candidates.of([*candidates, weak]), neighbours=flag)) for flag in (False, True))
    before, after = ([one.memory_id for one in ranked].index(weak.memory_id) for ranked in (alone, together))
    assert after < before
    (risen,) = [one for one in together if one.memory_id == weak.memory_id]
    assert risen.signals.fused == 0.06
    assert risen.signals.neighbours > 0
    assert risen.score >= risen.signals.fused
    scores = [one.score for one in together]
    assert scores == sorted(scores, reverse=True)
    above = fuse(Candidates.of([*candidates, weak]), threshold=0.1, neighbours=True)
    assert weak.memory_id not in [one.memory_id for one in above]


def test_a_place_that_two_have_counts_once() -> None:
    candidates = [Candidate(UUID(int=1 + place), 1, value / 2, 0.0, place=place) for place, value in talk(30).items()]
    twice = [*candidates, Candidate(UUID(int=1000), 1, 0.0, 0.0, place=30)]
    assert fuse(Candidates.of(twice), neighbours=True).part(0, 1)[0].memory_id == UUID(int=31)


def test_one_without_a_place_is_given_nothing() -> None:
    places = np.array([*range(60), NO_PLACE], dtype=np.int64)
    given_ = lifts(places, np.array([*talk(30).values(), 1.5]))
    assert given_[-1] == 0
    assert given_[30] > 0
