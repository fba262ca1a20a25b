"""What words weigh is remembered while little has changed, and counted again after that."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from service.index import rarity
from service.index.rarity import Rarity

pytestmark = pytest.mark.unit


class Counting:
    """Weighs words as the engine does, and keeps what it was asked."""

    def __init__(self, points: int) -> None:
        self.points = points
        self.weight = 1.0
        self.asked: list[list[int]] = []

    def __call__(self, terms: Sequence[int]) -> dict[int, float]:
        self.asked.append(list(terms))
        return dict.fromkeys(terms, self.weight)

    def weights(self, known: Rarity, *terms: int) -> dict[int, float]:
        return known.weights(terms, weigh=self, count=lambda: self.points)


def test_only_what_is_not_known_is_counted() -> None:
    known, engine = Rarity(), Counting(1000)
    assert engine.weights(known, 1, 2) == {1: 1.0, 2: 1.0}
    assert engine.weights(known, 2, 3) == {2: 1.0, 3: 1.0}
    assert engine.weights(known, 1, 2, 3) == {1: 1.0, 2: 1.0, 3: 1.0}
    assert engine.weights(known) == {}
    assert engine.asked == [[1, 2], [3]]


@pytest.mark.parametrize(("points", "tolerated"), [(0, 0), (1, 0), (199, 0), (200, 1), (1000, 5), (100_000, 500)])
def test_all_is_counted_again_when_more_than_half_a_percent_changed(points: int, tolerated: int) -> None:
    known, engine = Rarity(), Counting(points)
    engine.weights(known, 1)
    known.changed(tolerated)
    engine.weight = 2.0
    assert engine.weights(known, 1) == {1: 1.0}
    known.changed(1)
    assert engine.weights(known, 1) == {1: 2.0}
    # From here on it is half a percent of anew.
    known.changed(tolerated)
    engine.weight = 3.0
    assert engine.weights(known, 1) == {1: 2.0}


def test_what_was_counted_while_points_changed_is_not_remembered() -> None:
    known, engine = Rarity(), Counting(1000)

    def counted(terms: Sequence[int]) -> dict[int, float]:
        known.changed(1)
        return engine(terms)

    assert known.weights([1], weigh=counted, count=lambda: 1000) == {1: 1.0}
    engine.weight = 2.0
    assert engine.weights(known, 1) == {1: 2.0}


def test_a_word_that_nobody_has_is_remembered_too() -> None:
    known, engine = Rarity(), Counting(1000)
    engine.weight = 0.0
    assert engine.weights(known, 1) == engine.weights(known, 1) == {1: 0.0}
    assert len(engine.asked) == 1


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rarity, "_MOST_WORDS", 10)
    known, engine = Rarity(), Counting(1000)
    for term in range(100):
        engine.weights(known, term)
    engine.asked.clear()
    engine.weights(known, 1)
    assert engine.asked == [[1]]
    engine.weights(known, 99)
    assert engine.asked == [[1]]
