"""The evaluator against the truth table, and the tokens against the evaluator."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings

from service.filters.ast import Condition, Field, Not, Op, Scalar
from service.filters.evaluate import matches
from service.filters.parse import parse_filter
from service.filters.tokens import Tokenizer, condition_tokens, needed_token, token_texts
from service.records import Json, Memory
from tests.filters.strategies import CONDITIONS, TREES, populations
from tests.filters.truth_rows import BY_ID, ROWS
from tests.filters.truth_table import CASES, Case

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_truth_table(case: Case) -> None:
    tree = parse_filter(case.filter)
    assert {BY_ID[row.id] for row in ROWS.values() if matches(tree, row)} == case.names


def test_the_table_is_worth_its_name() -> None:
    """Each row is told apart by some case, and most cases take some rows and leave some."""
    assert len({case.name for case in CASES}) == len(CASES) >= 150
    assert set().union(*(case.expected for case in CASES if len(case.expected) < len(ROWS))) == BY_ID.keys()
    assert sum(0 < len(case.expected) < len(ROWS) for case in CASES) > len(CASES) * 0.75


class Counted(str):
    """A text that counts how often it is compared."""

    __slots__ = ()
    compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_in_does_not_compare_each_with_each() -> None:
    """A filter of many values on a memory of many would hold the interpreter for seconds."""
    row = replace(next(iter(ROWS.values())), metadata={"k": [Counted(number) for number in range(199)]})
    wanted = Condition(Field.METADATA, Op.IN, tuple(Counted(-1 - number) for number in range(1000)), ("k",))
    Counted.compared = 0
    assert not matches(wanted, row)
    assert Counted.compared <= 199
    assert matches(replace(wanted, value=(*wanted.value[:-1], "198")), row)  # type: ignore[index]


@pytest.mark.parametrize(
    ("stored", "wanted", "met"),
    [
        (True, 1, False),
        (1, True, False),
        (0, False, False),
        (1, 1.0, True),
        (-0.0, 0, True),
        (2**53 + 1, float(2**53), False),
        ("1", 1, False),
        (True, True, True),
        ({}, "x", False),
        ([None, [{"a": 1}, True]], True, True),
        (None, "x", False),
    ],
)
def test_in_is_eq_with_any_of_its_values(stored: Json, wanted: Scalar, met: bool) -> None:
    row = replace(next(iter(ROWS.values())), metadata={"k": stored})
    one = Condition(Field.METADATA, Op.IN, ("other", wanted), ("k",))
    assert matches(one, row) is matches(replace(one, op=Op.EQ, value=wanted), row) is met


@settings(max_examples=500, deadline=None)
@given(CONDITIONS, populations())
def test_tokens_decide_as_the_evaluator_does(condition: Condition, rows: list[Memory]) -> None:
    texts, needed = condition_tokens(condition), needed_token(condition)
    for row in rows:
        found = token_texts(row.metadata, row.categories, row.actor)
        if texts is not None:
            assert (not found.isdisjoint(texts)) is (matches(condition, row) is not (condition.op is Op.NE))
        if needed is not None and matches(condition, row):
            assert needed in found


@settings(max_examples=200, deadline=None)
@given(TREES, populations(most=2))
def test_not_is_the_opposite(tree: Condition, rows: list[Memory]) -> None:
    for row in rows:
        assert matches(Not(tree), row) is not matches(tree, row)


def test_ne_is_the_opposite_of_eq() -> None:
    for field, path, value in ((Field.USER, (), "alice"), (Field.METADATA, ("score",), 5), (Field.TEXT, (), "A note")):
        for row in ROWS.values():
            eq, ne = (matches(Condition(field, op, value, path), row) for op in (Op.EQ, Op.NE))
            assert eq is not ne


def test_token_texts_cannot_collide() -> None:
    different = (
        {"a.b": 1},
        {"a": {"b": 1}},
        {"a": {"b": "1"}},
        {"a": {"b": True}},
        {"a=b": "c"},
        {"a": "b=c"},
        {'a"]=': 1},
        {'a","b': 1},
        {"metadata": 1},
        {"categories": "food"},
    )
    texts = [frozenset(token_texts(metadata)) for metadata in different]
    texts += [frozenset(token_texts({}, ("food",))), frozenset(token_texts({}, (), "food"))]
    assert len(set(texts)) == len(texts)
    assert token_texts({"a": 1}) == token_texts({"a": 1.0}) != token_texts({"a": True})


def test_tokenizer() -> None:
    one, other = Tokenizer(bytes(32)), Tokenizer(bytes(31) + b"\x01")
    tokens = one.row_tokens({"a": [1, 1.0, 2], "b": None}, ("food",), "alice")
    assert tokens == sorted(set(tokens))
    assert len(tokens) == 7  # a, a=1, a=2; categories, categories=food; actor, actor=alice
    assert all(-(2**63) <= token < 2**63 for token in tokens)
    assert set(tokens).isdisjoint(other.row_tokens({"a": [1, 2]}, ("food",), "alice"))
    # First 8 bytes of HMAC-SHA256 under 32 zero bytes, as OpenSSL computes it: stored tokens outlive releases.
    assert one.token('["metadata","a"]=1') == 432531492751806148
    with pytest.raises(ValueError, match="32 bytes"):
        Tokenizer(b"short")
