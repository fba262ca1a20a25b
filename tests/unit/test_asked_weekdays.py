"""Weekdays, days of one month, counts of days, and what is to come, as understood on a Thursday in November 2026."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.memories.asked_times import asked_time
from service.memories.english_tenses import Tense, tense_at
from service.settings.languages import Language

pytestmark = pytest.mark.unit

TODAY = date(2026, 11, 26)


def spans(question: str, today: date = TODAY, language: Language = Language.ENGLISH) -> list[tuple[str, str]]:
    return [
        (begins.date().isoformat(), ends.date().isoformat())
        for begins, ends in asked_time(question, today, language).spans
    ]


@pytest.mark.parametrize(
    ("question", "first", "end"),
    [
        ("What did she say on Monday?", "2026-11-23", "2026-11-24"),
        ("what did she do monday evening", "2026-11-23", "2026-11-24"),
        ("What did he do Monday?", "2026-11-23", "2026-11-24"),
        ("What did she say on Thursday?", "2026-11-19", "2026-11-20"),
        ("Who called on Monday?", "2026-11-23", "2026-11-24"),
        ("On Monday, what did she do?", "2026-11-23", "2026-11-24"),
        ("Where did Will go on Monday?", "2026-11-23", "2026-11-24"),
        ("Who is the woman that called on Monday?", "2026-11-23", "2026-11-24"),
        ("meeting notes from Monday", "2026-11-23", "2026-11-24"),
        ("What did she say this Monday?", "2026-11-23", "2026-11-24"),
        ("What has changed since Monday?", "2026-11-23", "9999-12-31"),
        ("What is new since Monday?", "2026-11-23", "9999-12-31"),
        ("What did he do until Monday?", "0001-01-01", "2026-11-23"),
        ("What happened between Monday and Wednesday?", "2026-11-23", "2026-11-26"),
        ("What did she do from Friday to Monday?", "2026-11-20", "2026-11-24"),
        ("What did she do from Monday to Friday?", "2026-11-16", "2026-11-21"),
        ("What did they do Monday - Wednesday?", "2026-11-23", "2026-11-26"),
        ("What will she do on Monday?", "2026-11-30", "2026-12-01"),
        ("Is she going to call on Thursday?", "2026-12-03", "2026-12-04"),
        ("What will she do this Monday?", "2026-11-30", "2026-12-01"),
        ("What is she doing next Monday?", "2026-11-30", "2026-12-01"),
        ("What will happen from Friday to Monday?", "2026-11-27", "2026-12-01"),
        ("What did she say Monday of last week?", "2026-11-16", "2026-11-17"),
        ("What did she say last week on Wednesday?", "2026-11-18", "2026-11-19"),
        ("What happened on Monday, May 4th, 2026?", "2026-05-04", "2026-05-05"),
        ("What did she finish last Friday on 23 January, 2022?", "2022-01-23", "2022-01-24"),
        ("Where was she last weekend before April 10, 2023?", "0001-01-01", "2023-04-10"),
        ("Where did she go last weekend?", "2026-11-21", "2026-11-23"),
        ("What did she do on Friday in May?", "2026-05-01", "2026-06-01"),
        ("What happened last night?", "2026-11-25", "2026-11-26"),
        ("What did she eat this morning?", "2026-11-26", "2026-11-27"),
    ],
)
def test_a_weekday_is_the_last_one_or_the_one_that_comes(question: str, first: str, end: str) -> None:
    assert spans(question) == [(first, end)]


def test_a_span_of_weekdays_may_reach_into_the_week_before() -> None:
    tuesday, sunday = date(2026, 11, 24), date(2026, 11, 22)
    assert spans("What happened between Monday and Wednesday?", tuesday) == [("2026-11-16", "2026-11-19")]
    assert spans("What will happen between Monday and Wednesday?", tuesday) == [("2026-11-30", "2026-12-03")]
    assert spans("Where did she go last weekend?", sunday) == [("2026-11-14", "2026-11-16")]
    assert spans("Where did she go this weekend?", sunday) == [("2026-11-21", "2026-11-23")]


@pytest.mark.parametrize(
    "question",
    [
        "What does she do on Mondays?",
        "What does she do on Monday?",
        "Did she go to the gym on Monday mornings?",
        "What did they do every Friday?",
        "What did she use to do on Monday?",
        "Is he free on Friday?",
        "Do I have meetings on Monday?",
        "Is she invited on Monday?",
        "Who comes on Monday?",
        "What's on Monday?",
        "What did she say she will do on Monday?",
        "Does she work from Monday to Friday?",
        "appointments on Monday",
        "What did she say about the Monday project?",
        "What did she decide on Monday meetings?",
        "Did they eat at Friday's restaurant?",
        "Did they eat at Ruby Tuesday?",
        "What did she buy on Black Friday?",
        "What happened on Friday the 13th?",
        "On which Friday did she leave?",
        "What did she do the next Monday?",
        "What did they do on the last Friday of March?",
        "What did he do on his last Monday at work?",
        "What did she say about Friday?",
        "She sat down in the sun, what did she see?",
        "two or three Mondays ago",
        "How many Fridays ago was it?",
        "every two Fridays",
        "What does she do at the weekend?",
        "What did she usually do at the weekend?",
        "What did she wear on the weekend trip?",
    ],
)
def test_no_day(question: str) -> None:
    assert spans(question) == []


@pytest.mark.parametrize(
    ("question", "days"),
    [
        ("What happened on Tuesday and Wednesday?", ["2026-11-24", "2026-11-25"]),
        ("What happened on Monday, Tuesday or Wednesday?", ["2026-11-23", "2026-11-24", "2026-11-25"]),
        ("What will happen on Friday and Monday?", ["2026-11-27", "2026-11-30"]),
        ("What happened on the 3rd and 5th of May?", ["2026-05-03", "2026-05-05"]),
        ("on the 3rd, 5th and the 7th of May 2025", ["2025-05-03", "2025-05-05", "2025-05-07"]),
        ("on 3 or 5 May 2025", ["2025-05-03", "2025-05-05"]),
        ("What happened on May 3 and 5?", ["2026-05-03", "2026-05-05"]),
        ("on May 3, 5 and 7, 2025", ["2025-05-03", "2025-05-05", "2025-05-07"]),
        ("June 1st, 2nd and 3rd", ["2026-06-01", "2026-06-02", "2026-06-03"]),
        ("on May 3 and 5 people", ["2026-05-03"]),
        ("room 3 and 5 May", ["2026-05-05"]),
        ("in 2019 and 2021", ["2019-01-01", "2021-01-01"]),
        ("in March or April", ["2026-03-01", "2026-04-01"]),
        ("in March and may be later", ["2026-03-01"]),
    ],
)
def test_several_times_of_one_list(question: str, days: list[str]) -> None:
    assert [begins for begins, _ in spans(question)] == days


@pytest.mark.parametrize(
    ("question", "first", "end"),
    [
        ("What happened between 3 and 5 days ago?", "2026-11-21", "2026-11-24"),
        ("what happened 2 or 3 weeks ago", "2026-11-02", "2026-11-16"),
        ("what happened 2-3 weeks ago", "2026-11-02", "2026-11-16"),
        ("two to three months ago", "2026-08-01", "2026-10-01"),
        ("What changed since 2 or 3 weeks ago?", "2026-11-02", "9999-12-31"),
        ("a couple of days ago", "2026-11-24", "2026-11-25"),
        ("in the last couple of weeks", "2026-11-09", "9999-12-31"),
        ("more than two years ago", "0001-01-01", "2024-01-01"),
        ("less than two weeks ago", "2026-11-09", "9999-12-31"),
        ("no more than two weeks ago", "2026-11-09", "2026-11-16"),
        ("one year ago today", "2025-01-01", "2026-01-01"),
        ("the week before last", "2026-11-09", "2026-11-16"),
        ("in May of the year before last", "2024-05-01", "2024-06-01"),
        ("What happened in the last week?", "2026-11-16", "9999-12-31"),
        ("What did she say two Mondays ago?", "2026-11-16", "2026-11-17"),
        ("three Fridays ago", "2026-11-06", "2026-11-07"),
        ("a couple of Fridays ago", "2026-11-13", "2026-11-14"),
        ("What did she do on the Friday before last?", "2026-11-13", "2026-11-14"),
        ("What did she do Friday before last?", "2026-11-13", "2026-11-14"),
        ("the weekend before last", "2026-11-14", "2026-11-16"),
        ("What changed since two weekends ago?", "2026-11-14", "9999-12-31"),
        ("What did she do this weekend?", "2026-11-21", "2026-11-23"),
        ("What will she do this weekend?", "2026-11-28", "2026-11-30"),
        ("What did she do over the weekend?", "2026-11-21", "2026-11-23"),
        ("a fortnight ago", "2026-11-09", "2026-11-16"),
        ("in the last fortnight", "2026-11-09", "9999-12-31"),
        ("half a year ago", "2026-05-01", "2026-06-01"),
        ("more than half a year ago", "0001-01-01", "2026-05-01"),
        ("a year and a half ago", "2025-05-01", "2025-06-01"),
        ("two and a half years ago", "2024-05-01", "2024-06-01"),
        ("eleven months ago", "2025-12-01", "2026-01-01"),
    ],
)
def test_a_count_of_days(question: str, first: str, end: str) -> None:
    assert spans(question) == [(first, end)]


@pytest.mark.parametrize("question", ["the other day", "a few days ago", "several weeks ago", "3 weeks and 2 days ago"])
def test_what_is_vague_or_a_part_is_no_time(question: str) -> None:
    assert spans(question) == []


@pytest.mark.parametrize(
    ("question", "first"),
    [
        ("Where will she go in May?", "2027-05-01"),
        ("Where will she go in December?", "2026-12-01"),
        ("Where will they be on the 5th of May?", "2027-05-05"),
        ("Where will she go in May next year?", "2027-05-01"),
        ("next May", "2027-05-01"),
        ("Where did she go last May?", "2026-05-01"),
        ("Where did Will go in May?", "2026-05-01"),
        ("What will she do tomorrow?", "2026-11-27"),
        ("What will she do next week?", "2026-11-30"),
        ("What will happen on Friday next week?", "2026-12-04"),
    ],
)
def test_what_will_be_is_to_come(question: str, first: str) -> None:
    assert [begins for begins, _ in spans(question)] == [first]


def test_for_what_is_to_come_what_is_no_longer_so_is_not_wanted() -> None:
    for question in ("What will she take on Monday?", "What will she take in May?", "What will she take next week?"):
        assert not asked_time(question, TODAY).wants_superseded, question
    assert asked_time("What did she take on Monday?", TODAY).wants_superseded


@pytest.mark.parametrize(
    "question",
    [
        "What happened during the march?",
        "after the March on Washington",
        "Who is in April's class?",
        "the last May",
        "in May '24",
        "What did she do in her last year at school?",
        "the last week of school",
        "What happened the last night of the trip?",
        "What did she do the next week?",
        "in 1000 days",
    ],
)
def test_no_time(question: str) -> None:
    assert spans(question) == []


def test_a_person_beside_a_time_is_no_owner_of_it() -> None:
    assert spans("Who called her last week?") == [("2026-11-16", "2026-11-23")]


@pytest.mark.parametrize(
    ("before", "behind", "tense"),
    [
        ("What did she do ", "?", Tense.WAS),
        ("What has she done ", "?", Tense.WAS),
        ("What will be done about what she said ", "?", Tense.WAS),
        ("Will she come ", "?", Tense.WILL),
        ("What'll she do ", "?", Tense.WILL),
        ("What does she do ", "?", Tense.IS),
        ("Is she ill? ", " she was fine", Tense.WAS),
        ("She was ill. ", " she is fine", Tense.IS),
        ("notes of ", "", None),
    ],
)
def test_the_tense_around_a_time(before: str, behind: str, tense: Tense | None) -> None:
    assert tense_at(f"{before}on Monday{behind}", len(before), len(before) + len("on Monday")) is tense


@settings(deadline=None)
@given(st.text(max_size=40), st.dates())
def test_no_question_fails(question: str, today: date) -> None:
    for words in (
        "from Monday to Friday",
        "will be on Sunday",
        "3 and 5 May",
        "2-3 years ago",
        "last weekend",
        "in 9999",
    ):
        asked_time(f"{question} {words}", today)
        asked_time(f"{words} {question}", today, Language.SPANISH)


@pytest.mark.parametrize(
    ("language", "question"),
    [
        (Language.GERMAN, "Was machte sie jeden Montag?"),
        (Language.FRENCH, "Que faisait-elle le lundi ?"),
        (Language.FRENCH, "Qu'a-t-elle mangé à Mardi gras ?"),
        (Language.SPANISH, "¿Qué hacía los lunes?"),
        (Language.SPANISH, "¿Trabajaba de lunes a viernes?"),
        (Language.SPANISH, "¿Qué cantó Plácido Domingo?"),
        (Language.ITALIAN, "Che cosa faceva il lunedì?"),
        (Language.ITALIAN, "Lavorava dal lunedì al venerdì?"),
        (Language.PORTUGUESE, "O que ela disse na segunda vez?"),
        (Language.DUTCH, "Wat deed ze elke maandag?"),
        (Language.DUTCH, "Wat at ze op Goede Vrijdag?"),
        (Language.GERMAN, "Was geschah am Freitag, dem 13.?"),
        (Language.FRENCH, "Qu'a-t-elle dit vendredi 13 ?"),
        (Language.DUTCH, "Wat zei ze op vrijdag de 13e?"),
    ],
)
def test_what_was_each_week_or_on_another_day_is_no_day(language: Language, question: str) -> None:
    assert asked_time(question, TODAY, language).spans == ()
