"""The fused score: bounds, order, and what a hit by one signal alone is worth."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.index.candidates import Candidate, Candidates
from service.index.fusion import Ranking, keyword, most_left
from service.index.fusion import fuse as fuse_columns
from service.index.interface import SearchAnswer
from service.index.strength import strength

pytestmark = pytest.mark.unit

COSINES = st.floats(-1.0, 1.0)
BM25S = st.floats(0.0, 200.0)


def fuse(candidates: Iterable[Candidate], *, threshold: float = 0.0) -> Ranking:
    return fuse_columns(Candidates.of(candidates), threshold=threshold)


def score(semantic: float, bm25: float) -> float:
    (only,) = fuse([Candidate(UUID(int=1), 1, semantic, bm25)])
    assert only.signals.fused == only.score
    assert (only.signals.semantic, only.signals.bm25) == (semantic, bm25)
    return only.score


def candidates_of(*signals: tuple[float, float]) -> list[Candidate]:
    """Candidates of cosines and BM25 scores, with their numbers as ids."""
    return [Candidate(UUID(int=number), 1, *pair) for number, pair in enumerate(signals)]


@given(COSINES, BM25S)
def test_the_score_is_a_share_and_not_below_either_signal(semantic: float, bm25: float) -> None:
    assert 0 <= score(semantic, bm25) <= 1
    assert score(semantic, bm25) >= max(semantic, keyword(np.array(bm25))) - 1e-12


@given(COSINES, COSINES, BM25S, BM25S)
def test_more_of_a_signal_is_never_worth_less(one: float, other: float, few: float, many: float) -> None:
    (low, high), (few, many) = sorted((one, other)), sorted((few, many))
    assert score(low, few) <= score(high, few) + 1e-12
    assert score(low, few) <= score(low, many) + 1e-12


@given(st.floats(0.0, 1.0))
def test_meaning_alone_is_the_cosine(semantic: float) -> None:
    assert score(semantic, 0.0) == semantic


def test_a_cosine_is_told_within_its_bounds() -> None:
    (same, opposite) = fuse(candidates_of((1.0000004768, 0.0), (-1.0000004768, 0.0)))
    assert (same.signals.semantic, same.signals.rank, opposite.signals.semantic) == (1.0, 1.0, -1.0)


def test_a_text_passes_the_threshold_of_1_for_itself() -> None:
    """The engine gives 0.9999999 for it as well, and a threshold of 1 asks for the same text."""
    (same,) = fuse(candidates_of((0.9999999, 0.0), (0.99999, 0.0)), threshold=1.0)
    assert same.score == 0.9999999


@given(COSINES, st.floats(1e-9, 200.0))
def test_one_word_in_common_passes_the_default_threshold(semantic: float, bm25: float) -> None:
    assert score(semantic, bm25) >= 0.1


def test_the_scale() -> None:
    assert keyword(np.array(0.0)) == 0
    assert keyword(np.array(12.0)) == pytest.approx(0.55)
    assert score(0.5, 12.0) == pytest.approx(0.775)
    assert score(-0.3, 0.0) == 0


def test_the_best_is_first_and_ties_have_an_order() -> None:
    ids = [UUID(int=number) for number in range(1, 5)]
    given_ = [Candidate(id_, 1, cosine, 0.0) for id_, cosine in zip(ids, (0.2, 0.9, 0.2, 0.5), strict=True)]
    for order in (given_, given_[::-1]):
        assert [one.memory_id for one in fuse(order)] == [ids[1], ids[3], ids[0], ids[2]]


def test_a_score_does_not_depend_on_what_else_was_found() -> None:
    one, other = Candidate(UUID(int=1), 1, 0.4, 3.0), Candidate(UUID(int=2), 1, 0.9, 50.0)
    (alone,) = fuse([one])
    assert alone.score in [two.score for two in fuse([one, other])]
    assert list(fuse([])) == []


@given(COSINES, BM25S)
def test_what_was_not_found_has_no_more_than_its_signals_allow(semantic: float, bm25: float) -> None:
    """A search ends by it: too little would leave out what it has to find, too much would never end it."""
    left = SearchAnswer(Candidates.of([]), True, False, semantic, bm25)
    assert most_left(left) == pytest.approx(score(semantic, bm25), abs=1e-9)


def test_words_count_by_the_best_of_the_request() -> None:
    """At most a half, which is what the best gets, however much of them it has."""
    ranks = {one.memory_id.int: one.signals.rank for one in fuse(candidates_of((0.2, 30.0), (0.5, 15.0)))}
    assert ranks == {0: pytest.approx(0.7), 1: pytest.approx(0.75)}


def test_one_word_in_common_counts_little_though_it_is_the_best_there_is() -> None:
    """Below a BM25 of 12 a word counts the same whatever else was found, and what is nearer goes before it."""
    ranks = {one.memory_id.int: one.signals.rank for one in fuse(candidates_of((0.2, 6.0), (0.4, 3.0)))}
    assert ranks == {0: pytest.approx(0.45), 1: pytest.approx(0.525)}
    assert next(iter(fuse(candidates_of((0.2, 30.0), (0.4, 15.0))))).memory_id.int == 0


@given(COSINES, st.lists(BM25S, min_size=1, max_size=9))
def test_words_add_to_the_order_and_never_more_than_a_half(semantic: float, bm25s: list[float]) -> None:
    meaning = max(semantic, 0.0)
    ranks = [one.signals.rank for one in fuse(candidates_of(*((semantic, bm25) for bm25 in bm25s)))]
    assert all(meaning <= rank <= meaning + 0.5 + 1e-12 for rank in ranks)


def test_scores_follow_the_order() -> None:
    """The order weighs words by the best of the request, the score does not; no score is less than a later one."""
    candidates = candidates_of((0.5, 0.1), (0.2, 30.0))
    ranked = list(fuse(candidates))
    assert [one.memory_id.int for one in ranked] == [1, 0]
    assert ranked[0].signals.rank > ranked[1].signals.rank
    assert ranked[0].score == max(one.signals.fused for one in ranked)
    assert list(fuse(candidates, threshold=0.99)) == []


def test_what_an_answer_leaves_out_lends_no_score() -> None:
    ranked = fuse(candidates_of((0.9, 100.0), (0.5, 0.0), (0.3, 20.0)))
    whole = list(ranked)
    assert [one.memory_id.int for one in whole] == [0, 1, 2]
    assert whole[1].score == whole[2].signals.fused > whole[1].signals.fused
    assert ranked.part(0, 2)[1].score == whole[1].signals.fused


@given(st.lists(st.tuples(COSINES, BM25S), max_size=30))
def test_the_order_is_that_of_the_strengths(pairs: list[tuple[float, float]]) -> None:
    """The index chooses whose surroundings it looks at by the same formula, one candidate after the other."""
    best = max((bm25 for _, bm25 in pairs), default=0.0)
    wanted = [strength(semantic, bm25, best) for semantic, bm25 in pairs]
    ranked = fuse(Candidate(UUID(int=number), 1, *pair) for number, pair in enumerate(pairs))
    assert [one.signals.rank for one in ranked] == pytest.approx(sorted(wanted, reverse=True))
    assert {one.memory_id.int: one.signals.rank for one in ranked} == pytest.approx(dict(enumerate(wanted)))
    assert [one.memory_id for one in ranked.part(1, 3)] == [one.memory_id for one in ranked][1:3]


def test_what_is_spared_need_not_reach_the_threshold() -> None:
    columns = Candidates.of(candidates_of((0.5, 0.0), (0.05, 0.0), (0.04, 0.0)))
    found = fuse_columns(columns, threshold=0.1, spared=np.array([False, False, True]))
    assert [one.memory_id.int for one in found] == [0, 2]


def test_candidates_of_two_searches_are_each_there_once() -> None:
    one, other = candidates_of((0.5, 0.0), (0.4, 0.0)), candidates_of((0.5, 0.0), (0.4, 0.0), (0.3, 1.0))
    both = Candidates.of(one).with_also(Candidates.of(other))
    assert [candidate.memory_id.int for candidate in both] == [0, 1, 2]
