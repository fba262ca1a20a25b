"""What words weigh is remembered while little has changed, and counted again after that."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import pytest

from service.index import rarity
from service.index.rarity import Corpora, Rarity
from service.index.selection import Every, Has, IsSet, Key, Selection, Some, within
from service.scope import TenantId

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


TENANT, OTHER = TenantId(UUID(int=1)), TenantId(UUID(int=2))
WHOLE = within(TENANT, Every())
ALICES = within(TENANT, Has(Key.USER, ("alice",)))
BOBS_RUN = within(TENANT, Every((Has(Key.USER, ("bob",)), Has(Key.RUN, ("r",)))))
EITHER = within(TENANT, Some((Has(Key.USER, ("alice", "carol")), Has(Key.AGENT, ("a",)))))
CORPORA = (WHOLE, ALICES, BOBS_RUN, EITHER)


def counted_again(corpora: Corpora, engine: Counting, *, tenant_id: TenantId = TENANT) -> list[Selection]:
    """Which corpora have their words counted again."""
    engine.asked.clear()
    again = []
    for corpus in CORPORA:
        engine.weights(corpora.of(tenant_id, corpus), 1)
        if engine.asked:
            again.append(corpus)
        engine.asked.clear()
    return again


@pytest.mark.parametrize(
    ("fields", "of"),
    [
        ({Key.USER: "alice"}, [WHOLE, ALICES, EITHER]),
        ({Key.USER: "alice", Key.RUN: "r"}, [WHOLE, ALICES, EITHER]),
        ({Key.USER: "bob", Key.RUN: "r"}, [WHOLE, BOBS_RUN]),
        ({Key.USER: "bob"}, [WHOLE]),
        ({Key.AGENT: "a"}, [WHOLE, EITHER]),
        ({}, [WHOLE]),
    ],
)
def test_a_change_counts_in_the_corpora_that_have_it(fields: dict[Key, str], of: list[Selection]) -> None:
    corpora, engine = Corpora(), Counting(100)
    assert counted_again(corpora, engine) == list(CORPORA)
    assert counted_again(corpora, engine) == []
    corpora.stored(TENANT, [{key.value: value for key, value in fields.items()} | {"t": str(TENANT), "v": 7}])
    assert counted_again(corpora, engine) == of
    assert counted_again(corpora, engine) == []


def test_what_is_removed_may_have_been_in_any_of_the_tenant_s_corpora() -> None:
    corpora, engine = Corpora(), Counting(100)
    counted_again(corpora, engine)
    corpora.removed(OTHER, 3)
    corpora.stored(OTHER, [{"t": str(OTHER), "u": "alice"}])
    assert counted_again(corpora, engine) == []
    corpora.removed(TENANT, 1)
    assert counted_again(corpora, engine) == list(CORPORA)


def test_many_changes_add_up() -> None:
    corpora, engine = Corpora(), Counting(1000)
    counted_again(corpora, engine)
    corpora.stored(TENANT, [{"t": str(TENANT), "u": user} for user in ["alice"] * 5 + ["bob"]])
    assert counted_again(corpora, engine) == [WHOLE]
    corpora.stored(TENANT, [{"t": str(TENANT), "u": "alice"}])
    assert counted_again(corpora, engine) == [ALICES, EITHER]


def test_what_a_corpus_asks_for_beside_subjects_is_taken_to_be_there() -> None:
    corpora, engine = Corpora(), Counting(100)
    odd = within(TENANT, Every((IsSet(Key.CREATED), Has(Key.TOKENS, (7,)))))
    engine.weights(corpora.of(TENANT, odd), 1)
    corpora.stored(TENANT, [{"t": str(TENANT)}])
    engine.asked.clear()
    engine.weights(corpora.of(TENANT, odd), 1)
    assert engine.asked == [[1]]


def test_the_corpora_that_were_asked_last_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rarity, "_MOST_CORPORA", 4)
    corpora, engine = Corpora(), Counting(100)
    assert counted_again(corpora, engine) == list(CORPORA)
    assert counted_again(corpora, engine) == []
    engine.weights(corpora.of(OTHER, within(OTHER, Every())), 1)
    engine.weights(corpora.of(TENANT, EITHER), 1)
    assert counted_again(corpora, engine) == list(CORPORA[:3])
