"""Seasons, holidays, quarters, decades and parts of months and years, as understood on a Thursday in November 2026."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.memories.asked_times import asked_time
from service.memories.year_parts import part_days
from service.settings.languages import Language

pytestmark = pytest.mark.unit

TODAY = date(2026, 11, 26)


def spans(question: str, today: date = TODAY) -> list[tuple[str, str]]:
    return [(begins.date().isoformat(), ends.date().isoformat()) for begins, ends in asked_time(question, today).spans]


@pytest.mark.parametrize(
    ("question", "first", "end"),
    [
        ("What did she do in early 2024?", "2024-01-01", "2024-05-01"),
        ("in mid-2024", "2024-05-01", "2024-09-01"),
        ("What happened late 2023?", "2023-09-01", "2024-01-01"),
        ("since late 2023", "2023-09-01", "9999-12-31"),
        ("at the beginning of 2024", "2024-01-01", "2024-05-01"),
        ("in the middle of 2024", "2024-05-01", "2024-09-01"),
        ("at the end of 2024", "2024-09-01", "2025-01-01"),
        ("from the end of 2023 to the beginning of 2025", "2023-09-01", "2025-05-01"),
        ("between 2019 and late 2021", "2019-01-01", "2022-01-01"),
        ("in the second half of 2024", "2024-07-01", "2025-01-01"),
        ("in H1 2024", "2024-01-01", "2024-07-01"),
        ("in early May", "2026-05-01", "2026-06-01"),
        ("early in May", "2026-05-01", "2026-06-01"),
        ("in mid-March", "2026-03-01", "2026-04-01"),
        ("at the end of May", "2026-05-01", "2026-06-01"),
        ("in the first half of September 2022", "2022-09-01", "2022-10-01"),
        ("since the middle of May", "2026-05-11", "9999-12-31"),
        ("before late May", "0001-01-01", "2026-05-21"),
        ("after the first half of May", "2026-05-16", "9999-12-31"),
        ("in the first week of June", "2026-06-01", "2026-06-08"),
        ("the second week in November 2025", "2025-11-08", "2025-11-15"),
        ("in the last week of May 2024", "2024-05-25", "2024-06-01"),
        ("the first week of 2024", "2024-01-01", "2024-01-08"),
        ("What will she do in the first week of June?", "2027-06-01", "2027-06-08"),
        ("Where were they in the summer of 2023?", "2023-06-01", "2023-09-01"),
        ("What state did she visit in summer 2021?", "2021-06-01", "2021-09-01"),
        ("before the spring of 2023", "0001-01-01", "2023-03-01"),
        ("in the fall of 2023", "2023-09-01", "2023-12-01"),
        ("in the winter of 2022/23", "2022-12-01", "2023-03-01"),
        ("in winter 2022-2023", "2022-12-01", "2023-03-01"),
        ("What did they enjoy last summer?", "2026-06-01", "2026-09-01"),
        ("What did he read last fall?", "2025-09-01", "2025-12-01"),
        ("two summers ago", "2025-06-01", "2025-09-01"),
        ("the summer before last", "2025-06-01", "2025-09-01"),
        ("What did she do this summer?", "2026-06-01", "2026-09-01"),
        ("What will she do this summer?", "2027-06-01", "2027-09-01"),
        ("What will she do next winter?", "2026-12-01", "2027-03-01"),
        ("What did she do in the summer?", "2026-06-01", "2026-09-01"),
        ("What will she do in the summer?", "2027-06-01", "2027-09-01"),
        ("What has changed since the summer?", "2026-06-01", "9999-12-31"),
        ("in the summer of last year", "2025-06-01", "2025-09-01"),
        ("last year in the summer", "2025-06-01", "2025-09-01"),
        ("between spring and autumn 2023", "2023-03-01", "2023-12-01"),
        ("Where did she go over the Christmas holidays?", "2025-12-24", "2026-01-02"),
        ("What did he do on Christmas Day?", "2025-12-25", "2025-12-26"),
        ("What did he do last Christmas?", "2025-12-24", "2025-12-27"),
        ("What will he do at Christmas?", "2026-12-24", "2026-12-27"),
        ("at Christmas last year", "2025-12-24", "2025-12-27"),
        ("What happened on New Year's Eve?", "2025-12-31", "2026-01-01"),
        ("on New Year’s Day 2024", "2024-01-01", "2024-01-02"),
        ("What did they do on Halloween?", "2026-10-31", "2026-11-01"),
        ("What did he give her on Valentine's Day?", "2026-02-14", "2026-02-15"),
        ("What has changed since Christmas?", "2025-12-24", "9999-12-31"),
        ("What was decided in Q3 2024?", "2024-07-01", "2024-10-01"),
        ("the third quarter of 2024", "2024-07-01", "2024-10-01"),
        ("in the third quarter of last year", "2025-07-01", "2025-10-01"),
        ("What did we decide in Q3?", "2026-07-01", "2026-10-01"),
        ("from Q1 to Q3 2024", "2024-01-01", "2024-10-01"),
        ("What did we decide last quarter?", "2026-07-01", "2026-10-01"),
        ("Where did she live in the 90s?", "1990-01-01", "2000-01-01"),
        ("in the early 1990s", "1990-01-01", "2000-01-01"),
        ("in the eighties", "1980-01-01", "1990-01-01"),
    ],
)
def test_a_part_of_the_calendar(question: str, first: str, end: str) -> None:
    assert spans(question) == [(first, end)]


def test_a_winter_of_one_year_is_the_one_that_ends_or_the_one_that_begins_in_it() -> None:
    assert spans("in the winter of 2023") == [("2022-12-01", "2023-03-01"), ("2023-12-01", "2024-03-01")]
    assert spans("since the winter of 2023") == []


def test_the_season_of_the_day_is_this_one_and_not_the_last() -> None:
    july, january = date(2026, 7, 1), date(2027, 1, 15)
    assert spans("What did she do this summer?", july) == [("2026-06-01", "2026-09-01")]
    assert spans("What did she do last summer?", july) == [("2025-06-01", "2025-09-01")]
    assert spans("What did she do in the winter?", january) == [("2026-12-01", "2027-03-01")]
    assert spans("What did she do last winter?", january) == [("2025-12-01", "2026-03-01")]
    assert spans("What did she do last Christmas?", january) == [("2026-12-24", "2026-12-27")]


@pytest.mark.parametrize(
    "question",
    [
        "May I come on the 4th floor?",
        "May the 4th graders come?",
        "May the 3rd, who was ill, go?",
        "What may the 4th, Tom, do?",
        "How early may she come?",
        "How Late May They Stay?",
        "Why was Tom late? May I know?",
        "Who spoke about the late June Carter?",
        "How did she feel in the end, may I ask?",
        "the first of May's children",
        "the first week of June's holiday",
        "the first week of school",
        "the first half of the game",
        "until the end of the march",
        "late 2000 euros",
        "Summer said she was ill",
        "What did she do before Summer moved out?",
        "after Summer joined the team",
        "since Summer came",
        "What did he get from Summer?",
        "Who was in Summer's class?",
        "What did Donna Summer 1977 sound like?",
        "What did Mr. Winter 2023 say?",
        "What did she do at summer camp?",
        "What did she learn in summer school?",
        "Did they meet at 5 in the summer house?",
        "What does she do in the summer?",
        "What did she always do in the summer?",
        "What are her plans for the summer?",
        "What did she read on summer?",
        "When did she last fall?",
        "When did my mother last fall?",
        "Did she last summer in Rome?",
        "Did the prices fall 2023?",
        "Does this fall under the warranty?",
        "Was she hurt in the fall?",
        "Was she hurt in her last fall?",
        "What happened after the fall of Rome?",
        "What did she think of I Know What You Did Last Summer?",
        "the Christmas song",
        "Who sang Last Christmas?",
        "What did she put on the Christmas tree?",
        "What did they bake before Christmas cookies?",
        "What did she want for Christmas?",
        "What does she do on Christmas?",
        "What did she say about Christmas?",
        "Did she watch Halloween?",
        "Did she watch Halloween 2018?",
        "What did she wear to the Halloween party?",
        "What tradition does Tim mention they love during Halloween?",
        "What did she drive, an Audi Q3 2024?",
        "What did she drive, her Q3 2024?",
        "Did she buy a 2024 Q3?",
        "What did she answer in Q3?",
        "What did they decide about fiscal Q3 2024?",
        "Who scored in the fourth quarter?",
        "What happened in the last quarter of the game?",
        "She has H1 2024 in the header",
        "Was her heart rate in the 80s?",
        "Is the temperature in the nineties?",
        "Is he in his 60s?",
        "Does she like the 80s?",
    ],
)
def test_no_part_of_the_calendar(question: str) -> None:
    assert spans(question) == []


@settings(deadline=None)
@given(st.text(max_size=40), st.dates())
def test_no_question_fails(question: str, today: date) -> None:
    for words in (
        "last week of May",
        "two winters ago",
        "in the winter of 9999",
        "999 summers ago",
        "between Q1 and Q3",
        "What did she do at Christmas last year",
        "will she come this weekend",
        "next Christmas",
        "last quarter",
    ):
        asked_time(f"{question} {words}", today)
        asked_time(f"{words} {question}", today, Language.DUTCH)


@given(st.dates(date(3, 1, 1), date(9990, 1, 1)), st.sampled_from(["summer", "winter", "q4", "christmas", "late feb"]))
def test_a_part_without_its_year_has_begun_or_is_not_over(today: date, name: str) -> None:
    last, coming = (part_days(name, today, coming=one) for one in (False, True))
    assert last is not None
    assert coming is not None
    assert last[0] <= today < date.fromordinal(coming[0].toordinal() + coming[1])
    assert 0 <= (coming[0] - last[0]).days <= 366
