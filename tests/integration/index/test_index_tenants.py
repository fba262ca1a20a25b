"""Nothing of another tenant comes back, is counted or is changed, whatever filter or ids are given."""

from __future__ import annotations

from datetime import date
from uuid import UUID, uuid4

import pytest

from service.filters.ast import EVERYTHING, All, Any_, Condition, Field, Node, Not, Op
from service.index.interface import Index
from service.scope import SubjectKind
from tests.filters.truth_rows import TOKENIZER, subject_id
from tests.integration.index.points import KnowsAll, found, point, scope

pytestmark = [pytest.mark.integration, pytest.mark.qdrant_suite]

ALICE = subject_id(SubjectKind.USER, "alice")
BOB = subject_id(SubjectKind.USER, "bob")
SHARED = UUID(int=7)
NEVER_TRUE = Condition(Field.USER, Op.EQ, "ghost")
ALICES = Condition(Field.USER, Op.EQ, "alice")
FOOD = Condition(Field.CATEGORIES, Op.EQ, "food")

AWKWARD: list[Node] = [
    EVERYTHING,
    ALICES,
    All((EVERYTHING, All((ALICES,)))),
    All((EVERYTHING, All())),
    Any_((ALICES, Not(ALICES))),
    Any_((EVERYTHING, NEVER_TRUE)),
    Any_((Any_((Not(NEVER_TRUE),)), Any_())),
    Not(NEVER_TRUE),
    Not(Not(EVERYTHING)),
    Not(Any_()),
    Not(All((ALICES, NEVER_TRUE))),
    All((Not(NEVER_TRUE), Any_((FOOD, Not(FOOD))))),
    Condition(Field.USER, Op.NE, "ghost"),
    Condition(Field.USER, Op.EXISTS),
    Any_((Condition(Field.ID, Op.EQ, SHARED), Condition(Field.ID, Op.NE, SHARED))),
    Condition(Field.TEXT, Op.CONTAINS, "tea"),
    Not(Condition(Field.TEXT, Op.CONTAINS, "tea")),
    Condition(Field.EXPIRES, Op.NE, date(2000, 1, 1)),
]


@pytest.mark.parametrize("where", AWKWARD, ids=repr)
def test_a_filter_does_not_reach_another_tenant(index: Index, where: Node) -> None:
    mine, theirs = scope(), scope()
    tokens = [TOKENIZER.token('["categories"]="food"')]
    own = [point(SHARED, "green tea", user_id=ALICE, tokens=tokens), point(None, "green tea", user_id=ALICE)]
    index.of(mine).upsert(own)
    foreign = [point(SHARED, "green tea", user_id=ALICE, tokens=tokens, dense=own[0].dense)]
    foreign += [point(None, "green tea", user_id=ALICE) for _ in range(5)]
    index.of(theirs).upsert(foreign)
    assert found(index.of(mine), where, text="tea").keys() == {one.memory_id for one in own}
    assert found(index.of(scope()), where, text="tea") == {}


def test_the_same_id_in_two_tenants_is_two_memories(index: Index) -> None:
    mine, theirs = index.of(scope()), index.of(scope())
    mine.upsert([point(SHARED, "green tea", version=2)])
    theirs.upsert([point(SHARED, "black coffee")])
    assert (mine.existing([SHARED]), theirs.existing([SHARED])) == ({SHARED: 2}, {SHARED: 1})
    mine.delete([SHARED])
    assert (mine.count(), theirs.count()) == (0, 1)
    assert found(theirs, text="coffee")[SHARED].bm25 > 0


def test_ids_of_another_tenant_are_not_there(index: Index) -> None:
    mine, theirs = index.of(scope()), index.of(scope())
    ids = [uuid4() for _ in range(1200)]
    theirs.upsert([point(one) for one in ids])
    mine.delete(ids)
    assert mine.existing(ids) == {}
    assert mine.count() == 0
    assert mine.versions() == ({}, None)
    assert theirs.count() == len(ids)
    assert theirs.existing(ids).keys() == set(ids)
    assert index.count() == len(ids)


def test_versions_pages_through_one_tenant(index: Index) -> None:
    mine, theirs = index.of(scope()), index.of(scope())
    ids = {uuid4(): number for number in range(1, 26)}
    mine.upsert([point(one, version=version) for one, version in ids.items()])
    theirs.upsert([point() for _ in range(25)])
    seen: dict[UUID, int] = {}
    page, after = mine.versions(limit=10)
    while after is not None:
        seen |= page
        page, after = mine.versions(after=after, limit=10)
    assert seen | page == ids


def test_a_bound_scope_sees_its_users_only(index: Index) -> None:
    tenant = uuid4()
    writer = index.of(scope(tenant))
    hers, his, nobodys = point(user_id=ALICE, text="tea"), point(user_id=BOB, text="tea"), point(text="tea")
    writer.upsert([hers, his, nobodys])
    bound = index.of(scope(tenant, frozenset({"alice"})))
    for where in AWKWARD:
        assert found(bound, where, text="tea", users=frozenset({ALICE})).keys() <= {hers.memory_id}
    assert found(bound, text="tea", users=frozenset({ALICE})).keys() == {hers.memory_id}
    assert found(bound, text="tea", users=frozenset()) == {}
    with pytest.raises(ValueError, match="bound"):
        found(bound)


def test_what_is_expired_is_left_out(index: Index) -> None:
    part = index.of(scope())
    day = date(2024, 5, 1)
    ended, ends, lasts = point(expires_on=date(2024, 4, 30)), point(expires_on=day), point()
    part.upsert([ended, ends, lasts])
    assert found(part, on=day).keys() == {ends.memory_id, lasts.memory_id}
    assert found(part, Not(NEVER_TRUE), on=day).keys() == {ends.memory_id, lasts.memory_id}
    assert len(found(part)) == 3


def test_lookup_answers_are_not_trusted_with_the_tenant(index: Index) -> None:
    """A surrogate of another tenant, wrongly looked up, still finds nothing."""
    index.of(scope()).upsert([point(user_id=ALICE)])
    answer = index.of(scope()).search(point().dense, point().text_terms, ALICES, KnowsAll(), limit=10)
    assert not answer.candidates
    assert answer.exhausted
