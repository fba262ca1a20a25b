"""Composing a context: the budget holds for any memories, and only what says the same is left out."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.memories.context import compose, estimated_tokens
from service.records import Hit, Memory, Signals, SubjectNames
from tests.unit.test_wording import OTHER_FACTS, SAME_BUT_FOR_FORM, SAME_GIST

pytestmark = pytest.mark.unit

START = datetime(2026, 1, 1, tzinfo=UTC)


def hits(*texts: str, **metadata: str) -> list[Hit]:
    """Hits with falling scores, each a day newer than the one before it."""
    return [
        Hit(
            Memory(
                id=uuid4(),
                text=text,
                subjects=SubjectNames(user_id="alice"),
                metadata=metadata,
                categories=(),
                created_at=START + timedelta(days=number),
                updated_at=START + timedelta(days=number),
            ),
            score=1 - number / 100,
            signals=Signals(0, 0, 0, 0),
        )
        for number, text in enumerate(texts)
    ]


def kept(*texts: str) -> list[str]:
    """The texts of a context with room for everything."""
    return [one.text for one in compose(hits(*texts), max_tokens=10_000).snippets]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.text(max_size=400), max_size=12), st.integers(50, 400), st.text(max_size=80))
def test_the_budget_holds(texts: list[str], budget: int, connector: str) -> None:
    found = hits(*texts, connector=connector)
    context = compose(found, max_tokens=budget)
    assert context.tokens == estimated_tokens(context.text) <= budget
    assert len(context.snippets) + context.duplicates + context.left_out == len(found)
    assert len(context.text.split("\n")) == (len(context.snippets) + 1 if context.snippets else 1)
    assert all(one.line in context.text for one in context.snippets)


def test_a_long_best_hit_is_cut_instead_of_lost() -> None:
    context = compose(hits("word " * 1000), max_tokens=100)
    (snippet,) = context.snippets
    assert snippet.cut
    assert snippet.text.endswith("…")
    assert 90 <= context.tokens <= 100


@pytest.mark.parametrize("text", ["likes tea", "word " * 1000])
def test_a_long_source_takes_no_memory_out_of_a_small_context(text: str) -> None:
    context = compose(hits(text, connector="microsoft-teams", channel="#customer-success-escalations"), max_tokens=50)
    (snippet,) = context.snippets
    assert snippet.text[:9] == text[:9]
    assert snippet.cut is (len(text) > 9)
    assert context.tokens == estimated_tokens(context.text) <= 50


def test_a_shorter_hit_is_taken_where_a_long_one_does_not_fit() -> None:
    context = compose(hits("first", "long " * 200, "third"), max_tokens=100)
    assert [one.text for one in context.snippets] == ["first", "third"]
    assert context.left_out == 1


@pytest.mark.parametrize(("older", "newer"), SAME_BUT_FOR_FORM + SAME_GIST)
def test_of_what_says_the_same_the_newest_stands(older: str, newer: str) -> None:
    assert kept(older, newer) == [" ".join(newer.split())]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *OTHER_FACTS,
        (
            "Takes two tablets of metformin in the morning and one in the evening",
            "Takes two tablets of metformin in the evening and one in the morning",
        ),
        ("Ich darf wegen meines Magens kein Ibuprofen nehmen", "Ich darf wegen meines Magens Ibuprofen nehmen"),
        ("Has a table for dinner at Luigi's on Friday", "Has a table for dinner at Luigi's on Saturday"),
        ("Lifts 5 kg", "Lifts -5 kg"),
        ("The ratio is 10:30", "The ratio is 30:10"),
        ("Flies on 2025-03-04", "Flies on 2025-04-03"),
        (
            "Alice meets Bob every week on the 4th floor of the main building",
            "Alice meets Bob every week on the 5th floor of the main building",
        ),
        ("Alice eats fish on Fridays with her family", "Alice eats no fish on Fridays with her family"),
        ("Alice can come on Monday", "Alice can't come on Monday"),
        ("Alice works in the sales team of our Oslo office", "Alice works in the sales team of the Oslo office"),
        ("喜欢喝茶", "喜欢咖啡"),
    ],
)
def test_two_facts_are_two(one: str, other: str) -> None:
    assert sorted(kept(one, other)) == sorted([one, other])


def test_what_is_left_out_says_the_same_as_what_stands() -> None:
    """The second says the same as the others, which are two facts."""
    some, either, band = "knows police", "knows the police", "knows the Police"
    assert kept(some, band, either) == [either]
    assert sorted(kept(some, either, band)) == sorted([some, band])


def ranked(*given_: tuple[str, float], **metadata: str) -> list[Hit]:
    """Hits with these ranks, all of one day."""
    found = hits(*(text for text, _ in given_), **metadata)
    return [
        replace(
            hit,
            memory=replace(hit.memory, created_at=START, updated_at=START),
            signals=Signals(0, 0, 0, 0, rank=rank),
        )
        for hit, (_, rank) in zip(found, given_, strict=True)
    ]


def order(found: list[Hit]) -> list[str]:
    """The texts in the order of a context with room for all."""
    return [one.text for one in compose(found, max_tokens=10_000).snippets]


def test_a_question_goes_behind_what_may_answer_it() -> None:
    found = ranked(("Where do you live now?", 1.0), ("I moved to Lisbon", 0.97), ("It rains", 0.5))
    assert order(found) == ["I moved to Lisbon", "Where do you live now?", "It rains"]


def test_what_repeats_the_best_goes_behind_something_new() -> None:
    found = ranked(("red apples and green pears", 1.0), ("red apples and green plums", 0.9), ("She sails", 0.89))
    assert order(found) == ["red apples and green pears", "She sails", "red apples and green plums"]


def test_the_newest_of_what_says_the_same_has_the_place_and_the_score_of_the_best() -> None:
    best, other, last = ranked(("She sails", 1.0), ("He cooks", 0.9), ("she sails.", 0.1))
    newest = replace(last, memory=replace(last.memory, updated_at=START + timedelta(days=1)))
    context = compose([best, other, newest], max_tokens=10_000)
    assert [(one.text, one.score) for one in context.snippets] == [
        ("she sails.", best.score),
        ("He cooks", other.score),
    ]


def test_the_newer_goes_first_of_two_that_are_worth_the_same() -> None:
    old, new = ranked(("She sails", 1.0), ("He cooks", 1.0))
    later = replace(new, memory=replace(new.memory, created_at=START + timedelta(days=90)))
    assert order([old, later]) == ["He cooks", "She sails"]


def test_a_context_spreads_over_the_sources() -> None:
    slack = ranked(("She sails", 1.0), ("He cooks", 0.9), ("They sing", 0.89), connector="slack")
    jira = ranked(("It rains", 0.88), connector="jira")
    assert order([*slack, *jira]) == ["She sails", "It rains", "He cooks", "They sing"]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.text(max_size=200), max_size=12), st.integers(50, 300))
def test_without_labels_the_budget_is_for_the_texts(texts: list[str], budget: int) -> None:
    context = compose(hits(*texts), max_tokens=budget, labelled=False)
    assert estimated_tokens("\n".join(one.text for one in context.snippets)) <= budget
