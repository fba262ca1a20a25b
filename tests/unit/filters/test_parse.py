"""The filter parser: what it makes, what it refuses, and that a refusal says where without repeating values."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InvalidInput
from service.filters.ast import EVERYTHING, All, Any_, Condition, Field, Node, Not, Op, conditions, subject_names
from service.filters.build import and_, subjects_filter
from service.filters.parse import parse_filter
from service.filters.tokens import condition_tokens
from service.filters.values import FilterLimits
from service.records import SubjectNames
from service.scope import SubjectKind
from tests.filters.strategies import ANY_JSON

pytestmark = pytest.mark.unit

ALICE = Condition(Field.USER, Op.EQ, "alice")
BOB = Condition(Field.USER, Op.EQ, "bob")


@pytest.mark.parametrize(
    ("raw", "tree"),
    [
        (None, EVERYTHING),
        ({}, EVERYTHING),
        ({"user_id": "alice"}, ALICE),
        ({"AND": [{"user_id": "alice"}]}, ALICE),
        ({"user_id": "alice", "AND": [{"user_id": "bob"}]}, All((ALICE, BOB))),
        ([{"user_id": "alice"}, {"user_id": "bob"}], All((ALICE, BOB))),
        ({"OR": [{"user_id": "alice"}, {"user_id": "bob"}]}, Any_((ALICE, BOB))),
        ({"NOT": [{"user_id": "alice"}, {"user_id": "bob"}]}, Not(Any_((ALICE, BOB)))),
        ({"user_id": "*"}, Condition(Field.USER, Op.EXISTS)),
        ({"user_id": None}, Not(Condition(Field.USER, Op.EXISTS))),
        ({"categories": {"contains": "food"}}, Condition(Field.CATEGORIES, Op.EQ, "food")),
        ({"keywords": "tea"}, Condition(Field.TEXT, Op.ICONTAINS, "tea")),
        ({"metadata": {"a": {"b": {"gt": 1}}}}, Condition(Field.METADATA, Op.GT, 1, ("a", "b"))),
        (
            {"created_at": "2024-05-31"},
            All(
                (
                    Condition(Field.CREATED, Op.GTE, datetime(2024, 5, 31, tzinfo=UTC)),
                    Condition(Field.CREATED, Op.LT, datetime(2024, 6, 1, tzinfo=UTC)),
                )
            ),
        ),
    ],
)
def test_tree(raw: Any, tree: Node) -> None:
    assert parse_filter(raw) == tree


@pytest.mark.parametrize(
    ("raw", "place"),
    [
        ("alice", "filters: "),
        (7, "filters: "),
        ([], "filters: "),
        ([{}], "filters[0]: "),
        ([["user_id"]], "filters[0]: "),
        ({"AND": []}, "filters.AND: "),
        ({"or": []}, "filters.or: "),
        ({"NOT": []}, "filters.NOT: "),
        ({"NOT": {}}, "filters.NOT: "),
        ({"AND": {"user_id": "alice"}}, "filters.AND: "),
        ({"AND": [{"user_id": "alice"}, None]}, "filters.AND[1]: "),
        ({"color": "red"}, "filters: unknown key color; allowed are AND, OR, NOT, user_id"),
        ({"metadata.connector": "red"}, "filters: unknown key metadata.connector;"),
        ({"tenant_id": "x"}, "filters: unknown key tenant_id;"),
        ({"And": [{"user_id": "alice"}]}, "filters: unknown key And;"),
        ({"OR": [{"AND": [{"color": 1}]}]}, "filters.OR[0].AND[0]: unknown key color;"),
        ({"user_id": 7}, "filters.user_id: "),
        ({"user_id": True}, "filters.user_id: "),
        ({"user_id": {}}, "filters.user_id: "),
        (
            {"user_id": {"gt": "a"}},
            "filters.user_id: not a value or operator of this field; its operators are eq, ne, in",
        ),
        ({"user_id": {"contains": "a"}}, "filters.user_id: "),
        ({"user_id": {"nin": ["a"]}}, "filters.user_id: "),
        ({"user_id": {"EQ": "a"}}, "filters.user_id: "),
        ({"user_id": {"in": "alice"}}, "filters.user_id.in: "),
        ({"user_id": {"in": ["alice", 7]}}, "filters.user_id.in[1]: "),
        ({"user_id": ["alice", "*"]}, "filters.user_id: "),
        ({"user_id": {"in": ["*"]}}, "filters.user_id.in: "),
        ({"user_id": {"exists": "yes"}}, "filters.user_id.exists: "),
        ({"user_id": {"exists": 1}}, "filters.user_id.exists: "),
        ({"user_id": "a" * 256}, "filters.user_id: must have at most 255"),
        ({"actor_id": "a\x00b"}, "filters.actor_id: null characters"),
        ({"actor_id": "a\ud800b"}, "filters.actor_id: the text is not valid Unicode"),
        ({"text": None}, "filters.text: "),
        ({"text": ["a"]}, "filters.text: "),
        ({"text": "a" * 1001}, "filters.text: must have at most 1000"),
        ({"keywords": {"eq": "a"}}, "filters.keywords: "),
        ({"categories": {"icontains": "a"}}, "filters.categories: "),
        ({"categories": {"contains": ["a"]}}, "filters.categories.contains: "),
        ({"created_at": "yesterday"}, "filters.created_at: must be an ISO 8601 date"),
        ({"created_at": "2024-02-30"}, "filters.created_at: "),
        ({"created_at": "٢٠٢٤-٠٥-٠١"}, "filters.created_at: "),
        ({"created_at": "0001-01-01T00:00:00+14:00"}, "filters.created_at: "),
        ({"created_at": 1e300}, "filters.created_at: "),
        ({"created_at": 10**400}, "filters.created_at: "),
        ({"created_at": float("nan")}, "filters.created_at: "),
        ({"created_at": True}, "filters.created_at: "),
        ({"created_at": None}, "filters.created_at: "),
        ({"created_at": {"exists": True}}, "filters.created_at: "),
        ({"created_at": {"in": ["2024-05-01", "x"]}}, "filters.created_at.in[1]: "),
        ({"expiration_date": "soon"}, "filters.expiration_date: "),
        ({"memory_ids": None}, "filters.memory_ids: "),
        ({"memory_ids": [1]}, "filters.memory_ids: "),
        ({"memory_ids": {"ne": "x"}}, "filters.memory_ids: "),
        ({"metadata": {}}, "filters.metadata: "),
        ({"metadata": "*"}, "filters.metadata: "),
        ({"metadata": None}, "filters.metadata: "),
        ({"metadata": {"exists": True}}, "filters.metadata: operators stand"),
        ({"metadata": {"k": {}}}, "filters.metadata.<key 1>: "),
        ({"metadata": {"k": {"eq": 1, "sub": 2}}}, "filters.metadata.<key 1>: operators stand"),
        ({"metadata": {"j": 1, "k": {"nin": [1]}}}, "filters.metadata.<key 2>: "),
        ({"metadata": {"k": {"eq": [1]}}}, "filters.metadata.<key 1>.eq: "),
        ({"metadata": {"k": {"eq": {"a": 1}}}}, "filters.metadata.<key 1>.eq: "),
        ({"metadata": {"k": [[1]]}}, "filters.metadata.<key 1>[0]: "),
        ({"metadata": {"k": {"gt": True}}}, "filters.metadata.<key 1>.gt: "),
        ({"metadata": {"k": {"gt": None}}}, "filters.metadata.<key 1>.gt: "),
        ({"metadata": {"k": {"contains": None}}}, "filters.metadata.<key 1>.contains: "),
        ({"metadata": {"k": {"icontains": 1}}}, "filters.metadata.<key 1>.icontains: "),
        ({"metadata": {"k": float("inf")}}, "filters.metadata.<key 1>: numbers must be finite"),
        ({"metadata": {"k": 2**63}}, "filters.metadata.<key 1>: whole numbers"),
        ({"metadata": {"k\x00": 1}}, "filters.metadata.<key 1>: null characters"),
        ({7: "alice"}, "filters: "),
    ],
)
def test_refusal_says_where(raw: Any, place: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse_filter(raw)
    assert refusal.value.detail.startswith(place)
    assert refusal.value.status == 400


def test_refusal_repeats_no_value() -> None:
    secret = "canary-7f3"
    for raw in (
        {"user_id": {secret: 1}},
        {"created_at": secret},
        {"metadata": {secret: {"eq": [secret]}}},
        {"metadata": {secret: {secret: {"gt": None}}}},
        {"user_id": [secret, 1]},
        {"memory_ids": {"in": secret}},
        {"AND": secret},
    ):
        with pytest.raises(InvalidInput) as refusal:
            parse_filter(raw)
        assert secret not in refusal.value.detail


def test_unknown_key_is_shown_short_and_printable() -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse_filter({"a\nb\x1b" + "c" * 5000: 1})
    assert f"unknown key a?b?{'c' * 60};" in refusal.value.detail


def _nested(levels: int) -> Any:
    tree: Any = {"user_id": "alice"}
    for _ in range(levels - 1):
        tree = {"AND": [tree]}
    return tree


def _nested_metadata(levels: int) -> Any:
    inner: Any = 1
    for _ in range(levels - 1):
        inner = {"k": inner}
    return {"metadata": inner}


@pytest.mark.parametrize("build", [_nested, _nested_metadata])
def test_depth(build: Any) -> None:
    parse_filter(build(10))
    for levels in (11, 50, 5000):
        with pytest.raises(InvalidInput, match="at most 10 objects"):
            parse_filter(build(levels))


def test_numbers_of_conditions_and_values() -> None:
    parse_filter({"OR": [{"user_id": "a"}] * 200})
    with pytest.raises(InvalidInput, match="at most 200 conditions"):
        parse_filter({"OR": [{"user_id": "a"}] * 201})
    with pytest.raises(InvalidInput, match="at most 200 conditions"):
        parse_filter({"created_at": ["2024-05-01"] * 201})
    for key in ("user_id", "memory_ids", "categories", "expiration_date"):
        parse_filter({key: ["2024-05-01"] * 1000})
        with pytest.raises(InvalidInput, match="at most 1000 values"):
            parse_filter({key: ["2024-05-01"] * 1001})
    with pytest.raises(InvalidInput, match="at most 2 values"):
        parse_filter({"metadata": {"k": [1, 2, 3]}}, limits=FilterLimits(values=2))
    two, one = ({"metadata": {"k": list(range(number))}} for number in (1000, 1))
    parse_filter({"OR": [two, two]})
    for more in (one, {"memory_ids": ["x"]}, {"created_at": ["2024-05-01"]}, {"NOT": {"user_id": ["a"]}}):
        with pytest.raises(InvalidInput, match="at most 2000 values together"):
            parse_filter({"OR": [two, two, more]})


@settings(max_examples=500, deadline=None)
@given(ANY_JSON)
def test_any_json_is_parsed_or_refused(raw: Any) -> None:
    try:
        tree = parse_filter(raw)
    except InvalidInput:
        return
    for condition in conditions(tree):
        condition_tokens(condition)
        assert condition.op in (Op.IN, Op.EXISTS) or condition.value is not None


@settings(deadline=None)
@given(st.text(min_size=1, max_size=20))
def test_strings_stay_as_they_are(name: str) -> None:
    if name != "*" and "\x00" not in name:
        assert parse_filter({"user_id": name}) == Condition(Field.USER, Op.EQ, name)


def test_builders() -> None:
    assert and_() == EVERYTHING
    assert and_(EVERYTHING, ALICE) == ALICE
    assert and_(All((ALICE,)), BOB) == All((ALICE, BOB))
    assert subjects_filter(SubjectNames()) == EVERYTHING
    both = subjects_filter(SubjectNames(user_id="alice", run_id="r1"))
    assert both == All((ALICE, Condition(Field.RUN, Op.EQ, "r1")))
    assert subject_names(both) == {(SubjectKind.USER, "alice"), (SubjectKind.RUN, "r1")}


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Condition(Field.METADATA, Op.EXISTS),
        lambda: Condition(Field.USER, Op.EQ, "alice", ("a",)),
        lambda: Condition(Field.USER, Op.IN, "alice"),
        lambda: Condition(Field.USER, Op.EQ, ("alice",)),
    ],
)
def test_a_condition_of_a_wrong_shape_cannot_be_made(wrong: Any) -> None:
    with pytest.raises(ValueError, match="a condition"):
        wrong()
