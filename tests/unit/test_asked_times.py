"""The time that a question names, as it is understood on a Thursday in November 2026."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.memories.asked_times import asked_time

pytestmark = pytest.mark.unit

TODAY = date(2026, 11, 26)


@pytest.mark.parametrize(
    ("question", "first", "end"),
    [
        ("What did she say last week?", "2026-11-16", "2026-11-23"),
        ("what happened in March 2025", "2025-03-01", "2025-04-01"),
        ("What did he do yesterday?", "2026-11-25", "2026-11-26"),
        ("and the day before yesterday?", "2026-11-24", "2026-11-25"),
        ("Where did we go before June?", "0001-01-01", "2026-06-01"),
        ("What was on 5 May 2024?", "2024-05-05", "2024-05-06"),
        ("What was on May 5th, 2023?", "2023-05-05", "2023-05-06"),
        ("what was decided two weeks ago", "2026-11-09", "2026-11-16"),
        ("where was she 3 months ago", "2026-08-01", "2026-09-01"),
        ("who left in 2023?", "2023-01-01", "2024-01-01"),
        ("what changed since 2025-01-02", "2025-01-02", "9999-12-31"),
        ("what changed after August", "2026-09-01", "9999-12-31"),
        ("what did she do in May?", "2026-05-01", "2026-06-01"),
        ("where did they go last year?", "2025-01-01", "2026-01-01"),
    ],
)
def test_a_named_time(question: str, first: str, end: str) -> None:
    asked = asked_time(question, TODAY)
    ((begins, ends),) = asked.spans
    assert (begins.date().isoformat(), ends.date().isoformat()) == (first, end)
    assert not asked.present


@pytest.mark.parametrize(
    "question",
    [
        "What may she march for?",
        "before she moved",
        "2000 steps",
        "after 2000 steps",
        "in 2000 people",
        "on the 31 February",
        "in 0000",
        "April likes tea",
    ],
)
def test_no_time(question: str) -> None:
    assert asked_time(question, TODAY).spans == ()


@pytest.mark.parametrize("question", ["What is her current address?", "Where does she live now?", "the latest offer"])
def test_the_present(question: str) -> None:
    assert asked_time(question, TODAY).present


def test_two_times() -> None:
    assert len(asked_time("was it in May 2024 or in June 2024?", TODAY).spans) == 2


@given(st.text(max_size=60), st.dates())
def test_no_question_fails(question: str, today: date) -> None:
    for words in ("last week", "in 9999", "10 years ago", "before 1"):
        asked_time(f"{question} {words}", today)


@pytest.mark.parametrize(
    ("question", "wanted"),
    [
        ("where did she live before she moved?", True),
        ("what did he use to drink, what he used to like", True),
        ("her former employer", True),
        ("where did she live in March 2025?", True),
        ("where does she live?", False),
        ("recent preferences and ongoing tickets", False),
        ("what does she like these days", False),
        ("How old is her son?", False),
        ("which old friends does he see once a week?", False),
    ],
)
def test_what_is_no_longer_so_is_wanted_when_asked_for(question: str, wanted: bool) -> None:
    assert asked_time(question, TODAY).wants_superseded is wanted
