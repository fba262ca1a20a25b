"""Search by meaning and by words: both scores are right for every candidate, within one tenant's own statistics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4

import numpy as np
import pytest

from service.errors import IndexUnavailable
from service.filters.ast import EVERYTHING, All, Condition, Field, Op
from service.index.edge import EdgeIndex
from service.index.fusion import fuse
from service.index.interface import Index, Point
from service.index.questions import SparseTerms
from service.index.terms import Bm25Terms
from service.scope import SubjectKind
from tests.filters.truth_rows import subject_id
from tests.integration.index.points import NOON, SIZE, TERMS, KnowsAll, found, point, scope, vector

pytestmark = [pytest.mark.integration, pytest.mark.qdrant_suite]

NEWER = Condition(Field.CREATED, Op.GTE, NOON)
WORDS = ("tea", "coffee", "river", "music", "garden", "train", "winter", "letter")


def _texts(number: int) -> list[str]:
    random = np.random.default_rng(1)
    return [" ".join(random.choice(WORDS, size=3)) for _ in range(number)]


def _bm25(points: Sequence[Point], asked: SparseTerms) -> dict[UUID, float]:
    """The score of each point by the definition, over these points alone."""
    total, having = len(points), {term: sum(term in one.text_terms.ids for one in points) for term in asked.ids}
    idf = {term: math.log((total - n + 0.5) / (n + 0.5) + 1) for term, n in having.items()}
    return {
        one.memory_id: sum(
            idf[term] * weight
            for term, weight in zip(one.text_terms.ids, one.text_terms.weights, strict=True)
            if term in idf
        )
        for one in points
    }


def test_both_scores_are_exact_for_every_candidate(index: Index) -> None:
    """Against the definition of cosine and BM25, computed here."""
    tenant, texts = scope(), _texts(60)
    points = [point(text=text, dense=vector(number)) for number, text in enumerate(texts)]
    index.of(tenant).upsert(points)
    # Other tenants' words must not weigh.
    index.of(scope()).upsert([point(text="tea") for _ in range(200)])
    asked, wanted = TERMS.query("tea in the garden"), vector(1000)
    answer = index.of(tenant).search(wanted, asked, EVERYTHING, KnowsAll(), limit=8)
    assert not answer.exhausted
    assert 8 < len(answer.candidates) <= 16
    by_id = {one.memory_id: one for one in points}
    bm25 = _bm25(points, asked)
    for one in answer.candidates:
        cosine = float(np.dot(wanted, by_id[one.memory_id].dense))
        assert one.semantic == pytest.approx(cosine, abs=1e-5)
        assert one.bm25 == pytest.approx(bm25[one.memory_id], abs=1e-4)
    best = sorted(by_id, key=lambda id_: -np.dot(wanted, by_id[id_].dense))[:8]
    assert {one.memory_id for one in answer.candidates} >= set(best)
    assert max(bm25.values()) == pytest.approx(max(one.bm25 for one in answer.candidates), abs=1e-4)
    # What was not found has no more than what the last of each side had.
    assert answer.semantic_left == pytest.approx(np.dot(wanted, by_id[best[-1]].dense), abs=1e-5)
    assert answer.bm25_left == pytest.approx(sorted(bm25.values())[-8], abs=1e-4)
    assert answer.bm25_left > 0


def test_what_is_written_changed_and_removed_counts_at_once(edge_index: EdgeIndex) -> None:
    """Whatever is remembered of how rare words are: it is that of the points that are there."""
    tenant, texts = scope(), _texts(80)
    part, asked = edge_index.of(tenant), TERMS.query("tea in the garden by the river, with plums")
    points = [point(text=text, dense=vector(number)) for number, text in enumerate(texts)]

    def check() -> None:
        expected = _bm25(points, asked)
        scores = {
            one.memory_id: one.bm25
            for one in part.search(vector(7), asked, EVERYTHING, KnowsAll(), limit=100).candidates
        }
        assert scores == {id_: pytest.approx(score, abs=1e-4) for id_, score in expected.items()}

    part.upsert(points)
    check()
    check()
    points[:20] = [replace(one, version=2, text_terms=TERMS.document("garden plums")) for one in points[:20]]
    part.upsert(points[:20])
    check()
    part.delete([one.memory_id for one in points[:5]])
    del points[:5]
    check()
    edge_index.of(scope()).upsert([point(text="tea plums") for _ in range(50)])
    check()
    assert edge_index.compact()
    check()
    with edge_index.rebuild() as rebuild:
        del points[:30]
        rebuild.of(tenant).upsert(points)
    check()


@pytest.mark.parametrize("bound", [False, True])
def test_words_are_counted_among_the_memories_of_the_subjects_named(index: Index, bound: bool) -> None:
    """What other users of the tenant keep does not show in the scores, before and after anything changes."""
    alice, bob = (subject_id(SubjectKind.USER, name) for name in ("alice", "bob"))
    tenant = scope()
    part, asked = (
        index.of(scope(tenant.tenant_id, frozenset({"alice"})) if bound else tenant),
        TERMS.query("tea garden"),
    )
    hers = [point(text=text, dense=vector(number), user_id=alice) for number, text in enumerate(_texts(40))]

    def check() -> None:
        expected = _bm25(hers, asked)
        users = frozenset({alice}) if bound else None
        asked_for = EVERYTHING if bound else All((Condition(Field.USER, Op.EQ, "alice"), NEWER))
        answer = part.search(vector(7), asked, asked_for, KnowsAll(), limit=100, users=users)
        found = {one.memory_id: one.bm25 for one in answer.candidates}
        assert found == {id_: pytest.approx(score, abs=1e-4) for id_, score in expected.items()}

    index.of(tenant).upsert(hers)
    check()
    index.of(tenant).upsert([point(text="tea garden", user_id=bob) for _ in range(150)])
    check()
    index.of(tenant).upsert([point(text="tea", agent_id=bob) for _ in range(50)])
    check()
    hers += [point(text="garden", dense=vector(100 + number), user_id=alice) for number in range(30)]
    index.of(tenant).upsert(hers[40:])
    check()
    index.of(tenant).delete([one.memory_id for one in hers[:9]])
    del hers[:9]
    check()


def test_a_small_corpus_among_large_ones_is_counted_at_each_change(edge_index: EdgeIndex) -> None:
    """How many points two subjects share cannot be told from how many each has."""
    alice, helper = subject_id(SubjectKind.USER, "alice"), subject_id(SubjectKind.AGENT, "helper")
    tenant, asked = scope(), TERMS.query("tea garden")
    part = edge_index.of(tenant)
    for whose in ({"user_id": alice}, {"agent_id": helper}):
        part.upsert([point(text=text, **whose) for text in _texts(500)])
    edge_index.of(scope()).upsert([point(text=text) for text in _texts(500)])
    both = [point(text=text, user_id=alice, agent_id=helper) for text in ("tea", "garden", "tea tea")]
    where = All((Condition(Field.USER, Op.EQ, "alice"), Condition(Field.AGENT, Op.EQ, "helper")))

    def check() -> None:
        answer = part.search(vector(), asked, where, KnowsAll(), limit=50)
        expected = {id_: pytest.approx(score, abs=1e-4) for id_, score in _bm25(both, asked).items()}
        assert {one.memory_id: one.bm25 for one in answer.candidates} == expected

    part.upsert(both)
    check()
    both += [point(text="garden", user_id=alice, agent_id=helper) for _ in range(3)]
    part.upsert(both[3:])
    check()
    part.delete([both.pop().memory_id])
    check()


def test_the_scores_of_a_user_are_those_of_its_own_memories_at_each_moment(edge_index: EdgeIndex) -> None:
    """However many they are: when a weight that lags behind is counted anew would tell what others do."""
    alice, bob = (subject_id(SubjectKind.USER, name) for name in ("alice", "bob"))
    part, asked, where = edge_index.of(scope()), TERMS.query("plums"), Condition(Field.USER, Op.EQ, "alice")
    hers = [point(text=text, user_id=alice) for text in ("plums", *_texts(300))]
    bobs = [point(text="plums", user_id=bob) for _ in range(20)]

    def check() -> None:
        best = max(one.bm25 for one in part.search(vector(), asked, where, KnowsAll(), limit=5).candidates)
        assert best == pytest.approx(max(_bm25(hers, asked).values()), abs=1e-4)

    part.upsert([*hers, *bobs])
    check()
    hers.append(point(text="plums", user_id=alice))
    part.upsert(hers[-1:])
    check()
    part.delete([one.memory_id for one in bobs])
    check()
    part.delete([hers.pop().memory_id])
    check()


def test_a_hit_by_words_alone_is_found_and_scored(index: Index) -> None:
    part = index.of(scope())
    opposite = [-1.0] + [0.0] * (SIZE - 1)
    keyword_only = point(text="invoice ACME-1042", dense=opposite)
    part.upsert([keyword_only, *(point(text="tea", dense=vector(seed)) for seed in range(30))])
    answer = part.search(vector(), TERMS.query("ACME-1042"), EVERYTHING, KnowsAll(), limit=3)
    scored = {one.memory_id: one for one in fuse(answer.candidates)}
    assert scored[keyword_only.memory_id].signals.semantic == pytest.approx(-1.0)
    assert scored[keyword_only.memory_id].score > 0.1


def test_asking_for_more_until_exhausted(index: Index) -> None:
    part = index.of(scope())
    part.upsert([point(text="tea", dense=vector(seed)) for seed in range(50)])
    limit, sizes = 10, []
    while True:
        answer = part.search(vector(), TERMS.query("tea"), EVERYTHING, KnowsAll(), limit=limit)
        sizes.append(len(answer.candidates))
        if answer.exhausted:
            break
        limit *= 2
    assert sizes == sorted(sizes)
    assert sizes[-1] == 50
    assert limit == 80


def test_a_newer_point_is_not_overwritten_by_an_older(index: Index) -> None:
    part, id_ = index.of(scope()), uuid4()
    part.upsert([point(id_, "coffee", version=3)])
    part.upsert([point(id_, "tea", version=2), point(version=2)])
    assert part.existing([id_]) == {id_: 3}
    assert found(part, text="tea")[id_].bm25 == 0
    part.upsert([point(id_, "tea", version=3)])
    part.upsert([point(id_, "water", version=4)])
    assert part.existing([id_]) == {id_: 4}
    assert part.count() == 2


def test_an_upsert_leaves_nothing_of_the_older_point(index: Index) -> None:
    part, id_ = index.of(scope()), uuid4()
    part.upsert([point(id_, "coffee", user_id=uuid4(), tokens=[1, 2])])
    part.upsert([point(id_, "", version=2)])
    assert found(part, Condition(Field.USER, Op.EXISTS)) == {}
    assert found(part, text="coffee")[id_].bm25 == 0


@pytest.mark.parametrize("bad", [[1.0] * (SIZE - 1), [], [math.nan] * SIZE, [math.inf] + [0.0] * (SIZE - 1)])
def test_a_bad_vector_is_refused_and_nothing_is_stored(index: Index, bad: list[float]) -> None:
    part = index.of(scope())
    with pytest.raises(ValueError, match="finite"):
        part.upsert([*(point() for _ in range(600)), point(dense=bad)])
    assert part.count() == 0
    with pytest.raises(ValueError, match="finite"):
        part.search(bad, SparseTerms(), EVERYTHING, KnowsAll(), limit=1)


def test_extremes_are_stored(index: Index) -> None:
    part = index.of(scope())
    part.upsert(
        [
            point(
                text_terms=SparseTerms((0, 2**32 - 1), (1.0, 1.0)),
                tokens=[-(2**63), 2**63 - 1, 0],
                created_at=NOON.replace(year=1),
                updated_at=NOON.replace(year=9999),
                version=2**31,
            )
        ]
    )
    assert (
        part.search(vector(), SparseTerms((2**32 - 1,), (1.0,)), EVERYTHING, KnowsAll(), limit=1).candidates.bm25[0] > 0
    )


def test_keys_keep_statistics_of_tenants_apart() -> None:
    one, other = Bm25Terms(bytes(32)), Bm25Terms(bytes(31) + b"\x01")
    assert not set(one.document("tea and coffee").ids) & set(other.document("tea and coffee").ids)


def test_the_points_hold_nothing_readable(edge_index: EdgeIndex, tmp_path: Path) -> None:
    index = edge_index
    index.of(scope()).upsert([point(text="canaryword", tokens=[5])])
    index.flush()
    files = [file for file in (tmp_path / "index").rglob("*") if file.is_file()]
    assert files
    assert not any(b"canary" in file.read_bytes() for file in files)


def test_a_closed_index_says_so(index: Index) -> None:
    part = index.of(scope())
    index.close()
    for call in (part.count, index.count, index.flush, lambda: part.upsert([point()]), lambda: found(part)):
        with pytest.raises(IndexUnavailable, match="closed"):
            call()
