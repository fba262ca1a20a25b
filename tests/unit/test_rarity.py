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
    known, engine = Rarity(rarity.TOLERATED), Counting(points)
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


def counted_again(corpora: Corpora, engine: Counting) -> list[Selection]:
    """Which corpora have their words counted again."""
    again = []
    for corpus in CORPORA:
        engine.asked.clear()
        engine.weights(corpora.of(TENANT, corpus), 1)
        if engine.asked:
            again.append(corpus)
    return again


def payload(tenant_id: TenantId = TENANT, **subjects: str) -> dict[str, object]:
    """What a point keeps of whose it is, beside other things."""
    return {"t": str(tenant_id), "v": 7} | {Key[name.upper()].value: value for name, value in subjects.items()}


@pytest.mark.parametrize(
    ("subjects", "of"),
    [
        ({"user": "alice"}, [WHOLE, ALICES, EITHER]),
        ({"user": "alice", "run": "r"}, [WHOLE, ALICES, EITHER]),
        ({"user": "bob", "run": "r"}, [WHOLE, BOBS_RUN]),
        ({"user": "bob"}, [WHOLE]),
        ({"run": "r"}, [WHOLE]),
        ({"agent": "a"}, [WHOLE, EITHER]),
        ({"agent": "alice"}, [WHOLE]),
        ({}, [WHOLE]),
    ],
)
def test_a_change_counts_in_the_corpora_that_have_it(subjects: dict[str, str], of: list[Selection]) -> None:
    corpora, engine = Corpora(), Counting(100)
    assert counted_again(corpora, engine) == list(CORPORA)
    assert counted_again(corpora, engine) == []
    corpora.changed(TENANT, [payload(**subjects)])
    assert counted_again(corpora, engine) == of
    assert counted_again(corpora, engine) == []


def test_changes_of_another_tenant_do_not_count() -> None:
    corpora, engine = Corpora(), Counting(100)
    counted_again(corpora, engine)
    corpora.changed(OTHER, [payload(OTHER, user="alice"), payload(OTHER, user="bob", run="r")])
    assert counted_again(corpora, engine) == []


def test_the_tenant_lags_behind_a_little_and_named_subjects_never() -> None:
    """A weight that lags would tell a user when it was forgotten, which others have a part in."""
    corpora, engine = Corpora(), Counting(1000)
    counted_again(corpora, engine)
    corpora.changed(TENANT, [payload(user=user) for user in ["alice"] * 4 + ["bob"]])
    assert counted_again(corpora, engine) == [ALICES, EITHER]
    corpora.changed(TENANT, [payload(user="bob")])
    assert counted_again(corpora, engine) == [WHOLE]


def test_what_a_corpus_asks_for_beside_subjects_is_taken_to_be_there() -> None:
    corpora, engine = Corpora(), Counting(100)
    odd = within(TENANT, Every((IsSet(Key.CREATED), Has(Key.TOKENS, (7,)))))
    engine.weights(corpora.of(TENANT, odd), 1)
    corpora.changed(TENANT, [payload()])
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


def test_a_tenant_does_not_push_out_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rarity, "_MOST_OF_A_TENANT", len(CORPORA))
    corpora, engine, others = Corpora(), Counting(100), within(OTHER, Every())
    engine.weights(corpora.of(OTHER, others), 1)
    for number in range(1000):
        engine.weights(corpora.of(TENANT, within(TENANT, Has(Key.USER, (str(number),)))), 1)
    engine.asked.clear()
    engine.weights(corpora.of(OTHER, others), 1)
    assert engine.asked == []


@pytest.mark.parametrize("many", [False, True])
def test_a_corpus_of_many_names_is_not_remembered(many: bool) -> None:
    """Clients choose the names, a thousand in one condition."""
    names = tuple(map(str, range(17 if many else 16)))
    corpora, engine, corpus = (
        Corpora(),
        Counting(100),
        within(TENANT, Some((Has(Key.USER, names[:9]), Has(Key.RUN, names[9:])))),
    )
    for _ in range(2):
        assert engine.weights(corpora.of(TENANT, corpus), 1) == {1: 1.0}
    assert len(engine.asked) == (2 if many else 1)


def test_a_word_that_nobody_had_counts_once_somebody_has_it() -> None:
    """Without a weight it would not be asked for, and the memory that has it not be found by it."""
    known, engine = Rarity(0.5), Counting(1000)
    engine.weight = 0.0
    assert engine.weights(known, 1) == {1: 0.0}
    known.changed(1)
    engine.weight = 3.0
    assert engine.weights(known, 1) == {1: 3.0}
    known.changed(1)
    engine.weight = 2.0
    assert engine.weights(known, 1) == {1: 3.0}, "what has a weight may lag behind"
