"""The event that a question counts time from: a clause that tells what happened, and nothing else."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.memories.asked_events import Event, Side, asked_event
from service.memories.asked_times import asked_time, span_at

pytestmark = pytest.mark.unit

TODAY = date(2026, 11, 26)


@pytest.mark.parametrize(
    ("question", "words", "side"),
    [
        ("Where did she work before she moved to Lisbon?", "she moved to Lisbon", Side.BEFORE),
        ("Before she moved to Lisbon where did she work?", "she moved to Lisbon", Side.BEFORE),
        ("What did he drink until the doctor told him to stop?", "the doctor told him to stop", Side.BEFORE),
        ("What did he eat after he had surgery?", "he had surgery", Side.AFTER),
        ("What has changed since we hired Tom, and why?", "we hired Tom", Side.AFTER),
        ("What has she done since she has moved to Lisbon?", "she has moved to Lisbon", Side.AFTER),
        ("Which city was John in before traveling to Chicago?", "traveling to Chicago", Side.BEFORE),
        ("Who helped when Anna’s  car broke down?", "Anna’s car broke down", Side.DURING),
        ("When she was promoted, what did she buy?", "she was promoted", Side.DURING),
        ("Where did he live before the baby was born?", "the baby was born", Side.BEFORE),
    ],
)
def test_a_clause_that_tells_what_happened(question: str, words: str, side: Side) -> None:
    assert asked_event(question) == Event(words, side)


@pytest.mark.parametrize(
    "question",
    [
        "Where does she live?",
        "When did she move to Lisbon?",
        "When Tom moved to Lisbon?",
        "Since when has she had a dog?",
        "What does he eat before breakfast?",
        "What happened after the accident?",
        "What happened after the failed exam?",
        "What did she do after Tom's failed exam?",
        "What did she do in the evening after morning prayers?",
        "What does she do when she is tired?",
        "How does she feel when she's tired and needed?",
        "Where did she work while she lived in Rome?",
        "Where did she work when she was younger?",
        "What did she do when he didn't call?",
        "What can I cook since she likes fish?",
        "Wo hat sie gearbeitet, bevor sie umzog?",
        "before",
    ],
)
def test_a_thing_a_habit_and_a_state_are_no_event(question: str) -> None:
    assert asked_event(question) is None


def test_a_named_time_goes_before_an_event() -> None:
    assert asked_time("Where did she work before she moved in March 2025?", TODAY).event is None
    assert asked_time("Where did she work before she moved?", TODAY).event == Event("she moved", Side.BEFORE)


@pytest.mark.parametrize(
    ("question", "wanted"),
    [
        ("Where did she work until she moved to Oslo?", True),
        ("Where did she work when she met Tom?", True),
        ("Where has she worked since she moved to Oslo?", False),
    ],
)
def test_what_was_so_until_an_event_need_not_be_so_now(question: str, wanted: bool) -> None:
    assert asked_time(question, TODAY).wants_superseded is wanted


def test_the_span_of_each_side_of_a_moment() -> None:
    moment = datetime(2025, 3, 5, 12, 30, tzinfo=UTC)
    assert span_at(moment, Side.BEFORE) == (datetime.min.replace(tzinfo=UTC), moment)
    assert span_at(moment, Side.AFTER) == (moment, datetime.max.replace(tzinfo=UTC))
    assert span_at(moment, Side.DURING) == (datetime(2025, 3, 5, tzinfo=UTC), datetime(2025, 3, 6, tzinfo=UTC))


@given(st.lists(st.sampled_from(["before", "when", "she", "moved", "the", "was", "having", "?", ",", "'s", " "])))
def test_no_question_fails(words: list[str]) -> None:
    for event in (asked_event(" ".join(words)), asked_event("".join(words))):
        assert event is None or event.words
