"""The compiler to Qdrant on a real shard: against the truth table and against the evaluator."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from uuid import uuid4

import pytest
from hypothesis import given, settings

from service.filters.ast import EVERYTHING, Condition, Field, Node, Not, Op
from service.filters.evaluate import matches
from service.filters.parse import parse_filter
from service.index.edge import EdgeIndex
from service.index.filter_qdrant import compile_qdrant
from service.index.interface import Index
from service.index.questions import SparseTerms
from service.records import Memory
from tests.filters.strategies import TREES, populations
from tests.filters.truth_rows import BY_ID, LOOKUP, ROWS
from tests.filters.truth_table import CASES, Case
from tests.integration.index.points import NOON, SIZE, KnowsAll, found, point, point_of, scope, vector
from tests.qdrant.serving import Qdrant, open_complete

pytestmark = [pytest.mark.integration, pytest.mark.qdrant_suite]

TABLE = scope()


@pytest.fixture(scope="module", params=["edge", "server"])
def shard(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, qdrant: Qdrant) -> Iterator[Index]:
    """An index with the rows of the truth table, of each kind; other tenants have the same rows."""
    opened: Index = (
        EdgeIndex(tmp_path_factory.mktemp("data") / "index", dimensions=SIZE, model="test")
        if request.param == "edge"
        else open_complete(qdrant)
    )
    for one in (TABLE, scope()):
        opened.of(one).upsert([point_of(row) for row in ROWS.values()])
    yield opened
    opened.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_truth_table(shard: Index, case: Case) -> None:
    tree = parse_filter(case.filter)
    answer = shard.of(TABLE).search(vector(), SparseTerms(), tree, LOOKUP, limit=len(ROWS))
    names = {BY_ID[one.memory_id] for one in answer.candidates}
    assert names >= case.names
    if answer.exact:
        assert names == case.names
    assert {name for name in names if matches(tree, ROWS[name])} == case.names


def test_most_of_the_table_needs_no_second_look() -> None:
    exact = sum(compile_qdrant(parse_filter(case.filter), LOOKUP).exact for case in CASES)
    assert exact > len(CASES) / 2


@settings(max_examples=150, deadline=None)
@given(TREES, populations())
def test_as_the_evaluator(shard: Index, tree: Node, rows: list[Memory]) -> None:
    tenant = scope()
    part = shard.of(tenant)
    part.upsert([point_of(row) for row in rows])
    for node in (tree, Not(tree)):
        expected = {row.id for row in rows if matches(node, row)}
        answer = part.search(vector(), SparseTerms(), node, KnowsAll(), limit=100)
        ids = {one.memory_id for one in answer.candidates}
        assert ids == expected if answer.exact else ids >= expected
    part.delete([row.id for row in rows])


def test_relaxing_helps() -> None:
    """A range on metadata lets through only rows that set the path, whichever way round it is asked."""
    wide = compile_qdrant(Condition(Field.METADATA, Op.GT, 1, ("score",)), LOOKUP)
    assert not wide.exact
    assert wide.selection != compile_qdrant(EVERYTHING, LOOKUP).selection


def test_times_are_exact_to_the_microsecond(index: Index) -> None:
    tick = timedelta(microseconds=1)
    part = index.of(scope())
    before, at, after = (uuid4() for _ in range(3))
    for id_, moment in ((before, NOON - tick), (at, NOON), (after, NOON + tick)):
        part.upsert([point(id_, created_at=moment)])
    expected = {
        Op.EQ: {at},
        Op.NE: {before, after},
        Op.GT: {after},
        Op.GTE: {at, after},
        Op.LT: {before},
        Op.LTE: {before, at},
    }
    for op, ids in expected.items():
        assert found(part, Condition(Field.CREATED, op, NOON)).keys() == ids
