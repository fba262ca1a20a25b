"""The time that a question names, as it is understood on a Thursday in November 2026."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.memories.asked_events import Side
from service.memories.asked_times import asked_time, span_at

pytestmark = pytest.mark.unit

TODAY = date(2026, 11, 26)
FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


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
        ("Where was she before the 5th of May 2025?", "0001-01-01", "2025-05-05"),
        ("what changed since the 3rd of March", "2026-03-03", "9999-12-31"),
        ("who was there until the 2nd of June", "0001-01-01", "2026-06-02"),
        ("before the end of March 2025", "0001-01-01", "2025-04-01"),
        ("after the beginning of March 2025", "2025-03-01", "9999-12-31"),
        ("since the end of 2024", "2025-01-01", "9999-12-31"),
        ("What changed after March 2025 and before June 2025?", "2025-04-01", "2025-06-01"),
        ("before June 2025 but after March 2025", "2025-04-01", "2025-06-01"),
        ("from January 2025 until March 2025", "2025-01-01", "2025-04-01"),
        ("between 2025-01-01 and 2025-03-31", "2025-01-01", "2025-04-01"),
        ("from March to May 2025", "2025-03-01", "2025-06-01"),
        ("March to May 2025", "2025-05-01", "2025-06-01"),
        ("from March 2025 through May", "2025-03-01", "2025-06-01"),
        ("between 2019 and 2021", "2019-01-01", "2022-01-01"),
        ("from 5 May 2024 - 7 May 2024", "2024-05-05", "2024-05-08"),
        ("since the 3rd of March until the 5th of May", "2026-03-03", "2026-05-06"),
        ("in March before June moved out", "2026-03-01", "2026-04-01"),
        ("from November 2024 to February", "2024-11-01", "2025-03-01"),
        ("between November and February 2025", "2024-11-01", "2025-03-01"),
        ("from December 28 to January 3, 2025", "2024-12-28", "2025-01-04"),
        ("from October to December", "2025-10-01", "2026-01-01"),
        ("two years ago", "2024-01-01", "2025-01-01"),
        ("from March until the end of May", "2026-03-01", "2026-06-01"),
        ("from 3 to 5 May 2025", "2025-05-03", "2025-05-06"),
        ("3-5 May 2025", "2025-05-03", "2025-05-06"),
        ("between the 3rd and the 5th of May", "2026-05-03", "2026-05-06"),
        ("between May 3 and 5", "2026-05-03", "2026-05-06"),
        ("May 3\u20135, 2025", "2025-05-03", "2025-05-06"),
        ("from March 3 to March 5", "2026-03-03", "2026-03-06"),
        ("before May 3-5", "0001-01-01", "2026-05-03"),
        ("since May 3 to 5 people", "2026-05-03", "9999-12-31"),
        ("from May 3 to 10 miles", "2026-05-03", "2026-05-04"),
        ("room 3 until May 2025", "0001-01-01", "2025-05-01"),
        ("What did she say last Monday?", "2026-11-23", "2026-11-24"),
        ("what has changed since last Friday", "2026-11-20", "9999-12-31"),
        ("What happened in the last two weeks?", "2026-11-09", "9999-12-31"),
        ("over the past 3 days", "2026-11-23", "9999-12-31"),
        ("before the last 12 months", "0001-01-01", "2025-11-01"),
        ("in May of 2024", "2024-05-01", "2024-06-01"),
        ("What did she do in May last year?", "2025-05-01", "2025-06-01"),
        ("before the 5th of May of last year", "0001-01-01", "2025-05-05"),
        ("last year in May", "2025-05-01", "2025-06-01"),
        ("in December of this year", "2026-12-01", "2027-01-01"),
        ("on March 3, two years ago", "2024-03-03", "2024-03-04"),
        ("before the 3rd of May of 2024", "0001-01-01", "2024-05-03"),
        ("at the end of March of the year 2025", "2025-03-01", "2025-04-01"),
        ("who left in the year 2023?", "2023-01-01", "2024-01-01"),
        ("where was she prior to March 2025?", "0001-01-01", "2025-03-01"),
        ("prior to the year 2020", "0001-01-01", "2020-01-01"),
        ("later than March 2025", "2025-04-01", "9999-12-31"),
        ("no later than March 2025", "2025-03-01", "2025-04-01"),
        ("up to March 2025", "0001-01-01", "2025-04-01"),
        ("from March 2025 onwards", "2025-03-01", "9999-12-31"),
        ("from 2020 on, what did she do?", "2020-01-01", "9999-12-31"),
        ("in 2019-2021", "2019-01-01", "2022-01-01"),
        ("What happened May the 4th?", "2026-05-04", "2026-05-05"),
        ("on May the 4th, 2024", "2024-05-04", "2024-05-05"),
        ("since March the 3rd of the year 2025", "2025-03-03", "9999-12-31"),
        ("on the first of May 2024", "2024-05-01", "2024-05-02"),
        ("the twenty-first of June", "2026-06-21", "2026-06-22"),
        ("the morning of 5 May", "2026-05-05", "2026-05-06"),
        ("What did she say on 3-4 March 2025 about 5 cats?", "2025-03-03", "2025-03-05"),
        ("What changed in the last 24 hours?", "2026-11-25", "9999-12-31"),
        ("what happened over the past 30 hours", "2026-11-24", "9999-12-31"),
        ("What did he write in the last hour?", "2026-11-26", "9999-12-31"),
        ("Who called within the last ten minutes?", "2026-11-26", "9999-12-31"),
        ("Who called two hours ago?", "2026-11-26", "2026-11-27"),
        ("Who called half an hour ago?", "2026-11-26", "2026-11-27"),
        ("Who called 48 hours ago?", "2026-11-24", "2026-11-25"),
        ("Who has called since an hour ago?", "2026-11-26", "9999-12-31"),
    ],
)
def test_a_named_time(question: str, first: str, end: str) -> None:
    asked = asked_time(question, TODAY)
    ((begins, ends),) = asked.spans
    assert (begins.date().isoformat(), ends.date().isoformat()) == (first, end)
    assert not asked.present


@pytest.mark.parametrize(
    ("question", "first"),
    [("what was on 9999-12-31", "9999-12-31"), ("who left in 9999?", "9999-01-01"), ("in December 9999", "9999-12-01")],
)
def test_a_time_up_to_the_end_of_the_calendar_ends_with_it(question: str, first: str) -> None:
    ((begins, ends),) = asked_time(question, date.max).spans
    assert (begins.date().isoformat(), ends) == (first, LAST)


@pytest.mark.parametrize("moment", [FIRST, datetime(9999, 12, 31, tzinfo=UTC), LAST])
@pytest.mark.parametrize("side", Side)
def test_an_event_at_an_edge_of_the_calendar_makes_a_span(moment: datetime, side: Side) -> None:
    begins, ends = span_at(moment, side)
    assert FIRST <= begins <= ends <= LAST


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
        "Which apps on Windows 11 may be slow?",
        "How many of 30 may come",
        "Did he march 10 km?",
        "Did he march 10",
        "Is Jan 20 years old?",
        "What did she do before June moved out?",
        "after April joined the team",
        "what did she get from June?",
        "from 2000 to 3000 steps",
        "tea and may be milk",
        "between May and her sister",
        "from March on the river",
        "the last two weeks of school",
        "her last two weeks there",
        "up to 2020 steps",
        "Which version came in 2024.1?",
        "What changed since 2024.1.3?",
        "since 2024,500 people came",
        "What did she cancel at the last minute?",
        "Who scored in the last 10 minutes of the match?",
        "What did he read in the last hour before the exam?",
        "Who works 12 hours a day?",
        "Who came two and a half hours ago?",
    ],
)
def test_no_time(question: str) -> None:
    assert asked_time(question, TODAY).spans == ()


@pytest.mark.parametrize(
    "question",
    [
        *("What is her current address?", "Where does she live now?", "the latest offer", "What did she buy recently?"),
        *("What is he up to lately?", "What did they say the other day?", "Who called a few days ago?"),
        "What broke in the last few weeks?",
    ],
)
def test_the_present(question: str) -> None:
    assert asked_time(question, TODAY).present


def test_two_times() -> None:
    for question in (
        "was it in May 2024 or in June 2024?",
        "in May 2024 and June 2024",
        "before March 2025 or after June 2025",
        "in May or last year",
        "in May and since last year",
        "on 2025-03-04 and 2025-03-06",
    ):
        assert len(asked_time(question, TODAY).spans) == 2, question


@pytest.mark.parametrize(
    ("question", "first_of_the_first"),
    [
        ("in March or April 2025", "2025-03-01"),
        ("in March and in April 2025", "2025-03-01"),
        ("on March 3 or April 5, 2025", "2025-03-03"),
        ("in March 2024 or April 2025", "2024-03-01"),
        ("in March or in 2025", "2026-03-01"),
        ("yesterday or in April 2025", "2026-11-25"),
    ],
)
def test_two_months_of_one_year(question: str, first_of_the_first: str) -> None:
    first, second = asked_time(question, TODAY).spans
    assert (first[0].date().isoformat(), second[0].year) == (first_of_the_first, 2025)


def test_what_somebody_did_who_is_called_like_a_month_is_an_event() -> None:
    asked = asked_time("What did she do before June moved out?", TODAY)
    assert asked.event is not None
    assert asked.event.side is Side.BEFORE


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
        ("Has she lived in Rome before?", True),
        ("Did she drink coffee before? And now?", True),
        ("Where did she live before Lisbon?", True),
        ("Before the merger, who was her manager?", True),
        ("her preferences before she moved", True),
        ("What does she drink before bed?", False),
        ("What must I know before she arrives", False),
        ("her medical history", False),
        ("where does she live?", False),
        ("recent preferences and ongoing tickets", False),
        ("what does she like these days", False),
        ("How old is her son?", False),
        ("which old friends does he see once a week?", False),
        ("What dose of warfarin does she take today?", False),
        ("What does she take this week?", False),
        ("What has she taken since March?", True),
        ("What did she take yesterday?", True),
    ],
)
def test_what_is_no_longer_so_is_wanted_when_asked_for(question: str, wanted: bool) -> None:
    assert asked_time(question, TODAY).wants_superseded is wanted


@pytest.mark.parametrize(
    "question",
    [
        "1.5 years ago",
        "what was 2,5 years ago",
        "1/2 years ago",
        "twenty-one days ago",
        "twenty two years ago",
        "a hundred and two days ago",
        "one and half a year ago",
        "twenty-one and a half years ago",
        "twenty-one or two days ago",
        "a quarter of a year ago",
        "2 to 3-5 years ago",
    ],
)
def test_the_tail_of_a_number_is_no_number(question: str) -> None:
    assert asked_time(question, TODAY).spans == ()


def test_of_a_question_full_of_times_some_are_read() -> None:
    asked = asked_time(" ".join(f"in {year}" for year in range(1900, 2000)), TODAY)
    assert 0 < len(asked.spans) < 20
