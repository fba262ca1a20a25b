"""What stands beside the best hits is found too, and only what the same search may see, on both engines."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest

from service.filters.ast import EVERYTHING, Condition, Field, Node, Op
from service.index.interface import Index, Point, ScopedIndex
from service.index.questions import SparseTerms
from tests.integration.index.points import NOON, SIZE, TERMS, KnowsAll, point, scope, vector

pytestmark = pytest.mark.integration

#: Where the line begins; near the greatest number that the engines take.
START = 2**62
BEST = START + 100


def line(**of_neighbour: object) -> list[Point]:
    """Two hundred points in one line: the one at `BEST` is the nearest, and the one behind it the farthest."""
    opposite = [-1.0] + [0.0] * (SIZE - 1)
    points = []
    for number in range(200):
        place = START + number
        given = {"place": place, "dense": vector(number), "text_terms": TERMS.document("winter letter")}
        if place == BEST:
            given |= {"dense": vector()}
        if place == BEST + 1:
            given |= {"dense": opposite, "text_terms": TERMS.document("green tea")} | of_neighbour
        points.append(point(**given))
    return points


def places(part: ScopedIndex, where: Node = EVERYTHING, **more: object) -> set[int | None]:
    """The places of what a search for five finds."""
    settings: dict[str, object] = {"limit": 5, "neighbours": True} | more
    answer = part.search(vector(), TERMS.query("letter"), where, KnowsAll(), **settings)  # type: ignore[arg-type]
    return {one.place for one in answer.candidates}


def test_what_stands_beside_the_best_is_found_with_both_scores(index: Index) -> None:
    part = index.of(scope())
    part.upsert(line())
    assert {BEST - 7, BEST - 1, BEST, BEST + 1, BEST + 2, BEST + 7} <= places(part)
    assert BEST + 1 not in places(part, neighbours=False)
    answer = part.search(vector(), TERMS.query("tea"), EVERYTHING, KnowsAll(), limit=5, neighbours=True)
    (beside,) = [one for one in answer.candidates if one.place == BEST + 1]
    assert beside.semantic == pytest.approx(-1.0)
    assert beside.bm25 > 0
    assert not answer.exhausted


def test_nothing_is_borrowed_from_what_the_search_may_not_see(index: Index) -> None:
    alice, bob = uuid4(), uuid4()
    tenant = scope()
    points = [
        point(one.memory_id, place=one.place, dense=one.dense, text_terms=one.text_terms, user_id=alice)
        for one in line()
    ]
    hidden = points[101]
    others = {
        "another user's": point(hidden.memory_id, place=hidden.place, dense=hidden.dense, user_id=bob, version=2),
        "expired": point(
            hidden.memory_id, place=hidden.place, dense=hidden.dense, user_id=alice, version=3, expires_on=NOON.date()
        ),
    }
    part = index.of(tenant)
    part.upsert(points)
    assert BEST + 1 in places(part, users=frozenset({alice}))
    part.upsert([others["another user's"]])
    assert BEST + 1 in places(part)
    assert BEST + 1 not in places(part, users=frozenset({alice}))
    part.upsert([others["expired"]])
    assert BEST + 1 in places(part, users=frozenset({alice}), on=NOON.date())
    assert BEST + 1 not in places(part, users=frozenset({alice}), on=NOON.date() + timedelta(days=1))


def test_what_a_filter_leaves_out_is_not_borrowed_from(index: Index) -> None:
    part = index.of(scope())
    part.upsert(line(created_at=NOON - timedelta(days=30)))
    recent = Condition(Field.CREATED, Op.GTE, NOON)
    assert {BEST - 1, BEST, BEST + 2} <= places(part, recent)
    assert BEST + 1 not in places(part, recent)
    # The index cannot tell which of these the filter means, so nothing is borrowed at all.
    inexact = Condition(Field.TEXT, Op.CONTAINS, "letter")
    assert places(part, inexact) == places(part, inexact, neighbours=False)


def test_another_tenants_line_is_another_line(index: Index) -> None:
    mine, theirs = index.of(scope()), index.of(scope())
    mine.upsert([point(place=BEST), *(point(dense=vector(seed), place=START + 500 + seed) for seed in range(50))])
    theirs.upsert(line())
    assert BEST + 1 not in places(mine)


def test_points_of_earlier_releases_have_no_place(index: Index) -> None:
    part = index.of(scope())
    part.upsert([point(dense=vector(seed)) for seed in range(20)])
    answer = part.search(vector(), SparseTerms(), EVERYTHING, KnowsAll(), limit=5, neighbours=True)
    assert [one.place for one in answer.candidates] == [None] * 5


@pytest.mark.parametrize("neighbours", [True, False])
def test_what_words_alone_find_is_kept_where_many_stand_at_one_place(index: Index, neighbours: bool) -> None:
    """Adds that run at once get one place: what is around the best can be more than a search takes."""
    part = index.of(scope())
    far = point(place=BEST + 50, dense=[-1.0] + [0.0] * (SIZE - 1), text_terms=TERMS.document("the booking KX4711"))
    near = [
        point(place=BEST + number % 8, dense=vector(number), text_terms=TERMS.document("winter letter"))
        for number in range(800)
    ]
    part.upsert([*near, far])
    words = TERMS.query("letter about KX4711")
    answer = part.search(vector(), words, EVERYTHING, KnowsAll(), limit=5, neighbours=neighbours)
    (found,) = [one for one in answer.candidates if one.memory_id == far.memory_id]
    assert found.semantic == pytest.approx(-1.0)
    assert found.bm25 > 0
    best = sorted(answer.candidates, key=lambda one: -one.semantic)[:5]
    assert all(one.bm25 > 0 for one in best)
