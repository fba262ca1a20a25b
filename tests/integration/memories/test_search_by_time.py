"""Questions that name a time, the present, and a day of reference, asked of real memories."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest

from service.filters.ast import EVERYTHING
from service.filters.parse import parse_filter
from service.index.scoped import TenantIndex
from service.memories.actions import Query
from service.memories.searching import USUAL_THRESHOLD
from service.records import Message, NewMemories, SubjectNames
from service.scope import Caller
from service.settings.languages import Language
from service.storage.superseding import supersede
from service.wiring import Services

pytestmark = pytest.mark.integration

MOVES = {
    "I moved to Oslo": datetime(2025, 3, 10, tzinfo=UTC),
    "I moved to Rome": datetime(2025, 6, 20, tzinfo=UTC),
    "I moved to Lima": datetime(2026, 11, 18, tzinfo=UTC),
}
TODAY = date(2026, 11, 26)


def first(services: Services, caller: Caller, question: str, on: date = TODAY) -> tuple[str, float]:
    """The text of the best hit, and what it got for its time. All three are found: a time leaves nothing out."""
    hits = services.memories.search(caller, caller.scope, Query(question, on=on, reference=on, threshold=0.0))
    assert len(hits) == len(MOVES)
    return hits[0].memory.text, hits[0].signals.time


@pytest.fixture
def moved(services: Services, caller: Caller) -> Services:
    """A service that knows three moves, told at the time of each."""
    for text, moment in MOVES.items():
        new = NewMemories([Message("user", text)], SubjectNames(user_id="ann"), infer=False, occurred_at=moment)
        services.adds.add(caller, caller.scope, new)
    return services


def test_a_named_time_comes_first(moved: Services, caller: Caller) -> None:
    for question, text in (
        ("Where did she move in March 2025?", "I moved to Oslo"),
        ("Where did she move in June 2025?", "I moved to Rome"),
        ("Where did she move last week?", "I moved to Lima"),
        ("Where did she move before June 2025?", "I moved to Oslo"),
        ("Where does she live at the moment, where did she move?", "I moved to Lima"),
    ):
        found, time = first(moved, caller, question)
        assert (question, found) == (question, text)
        assert time >= 0.3


def test_the_day_of_reference_is_today(moved: Services, caller: Caller) -> None:
    """The same words mean another time on another day."""
    assert first(moved, caller, "Where did she move last week?", on=date(2025, 3, 18))[0] == "I moved to Oslo"
    assert first(moved, caller, "Where did she move last month?", on=date(2025, 7, 2))[0] == "I moved to Rome"
    assert first(moved, caller, "Where did she move on Friday?", on=date(2025, 6, 22))[0] == "I moved to Rome"


def test_a_time_in_the_language_of_the_tenant(moved: Services, caller: Caller) -> None:
    question, past = "Wohin zog sie letzte Woche?", "Wohin zog sie im März 2025?"
    assert first(moved, caller, question)[1] < 0.3
    moved.installation.tenants.set_language(str(caller.principal.tenant_id), Language.GERMAN)
    for asked, text in ((question, "I moved to Lima"), (past, "I moved to Oslo")):
        found, time = first(moved, caller, asked)
        assert (asked, found) == (asked, text)
        assert time >= 0.3


def test_a_score_is_that_of_a_hit_of_the_answer(moved: Services, caller: Caller) -> None:
    """What is left out by the number, by a newer memory or by a filter that the index cannot decide shows nothing."""
    question, where = "Did she go to Italy in March 2025?", parse_filter({"text": {"contains": "Oslo"}})
    whole = Query(question, reference=TODAY)
    hits = {hit.memory.text: hit for hit in moved.memories.search(caller, caller.scope, whole)}
    oslo, rome = hits["I moved to Oslo"], hits["I moved to Rome"]
    assert next(iter(hits)) == "I moved to Oslo"
    assert oslo.score == rome.score == rome.signals.fused > oslo.signals.fused
    with moved.installation.database.transaction(caller.scope) as connection:
        supersede(connection, caller.scope, {oslo.memory.id: [rome.memory.id]})
    for query in (replace(whole, limit=1), replace(whole, where=where), replace(whole, latest=True)):
        found = moved.memories.search(caller, caller.scope, query)
        assert found[0].memory.id == oslo.memory.id
        own = [hit.signals.fused for hit in found]
        assert [hit.score for hit in found] == [max(own[place:]) for place in range(len(own))]
        assert found[0].score < rome.score
    # The threshold is compared with what a memory has itself, whatever it is shown with.
    between = (oslo.signals.fused + rome.signals.fused) / 2
    above = moved.memories.search(caller, caller.scope, replace(whole, threshold=between))
    assert [hit.memory.id for hit in above] == [rome.memory.id]


def test_what_is_of_the_named_time_is_found_among_many_that_are_nearer(moved: Services, caller: Caller) -> None:
    """Among the nearest of all times there is none of it."""
    notes = [Message("user", f"She went for a walk in the park, number {number}") for number in range(180)]
    for start in range(0, len(notes), 60):
        part = notes[start : start + 60]
        long_ago = datetime(2024, 1, 1 + start // 60, tzinfo=UTC)
        new = NewMemories(part, SubjectNames(user_id="ann"), infer=False, occurred_at=long_ago)
        moved.adds.add(caller, caller.scope, new)
    of_ann, with_o = parse_filter({"user_id": "ann"}), parse_filter({"text": {"contains": "o"}})
    for when, where, texts in (
        ("last week", EVERYTHING, {"I moved to Lima"}),
        ("last week", of_ann, {"I moved to Lima"}),
        ("last week", with_o, {"I moved to Lima"}),
        ("since June 2025", EVERYTHING, {"I moved to Rome", "I moved to Lima"}),
        ("from March to June 2025", EVERYTHING, {"I moved to Oslo", "I moved to Rome"}),
    ):
        asked = Query(f"Where did she go for a walk {when}?", where, on=TODAY, reference=TODAY, threshold=None)
        hits = moved.memories.search(caller, caller.scope, asked)
        assert {hit.memory.text for hit in hits[: len(texts)]} == texts
        assert {hit.memory.created_at.year for hit in hits[len(texts) :]} == {2024}
        assert len({hit.memory.id for hit in hits}) == len(hits) == 10


def test_a_time_that_most_memories_are_of_takes_no_search_of_its_own(
    moved: Services, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose memories are not among the nearest does, also beside another one."""
    notes = [Message("user", f"She went for a walk in the park, number {number}") for number in range(90)]
    this_year = datetime(2026, 1, 1, tzinfo=UTC)
    new = NewMemories(notes, SubjectNames(user_id="ann"), infer=False, occurred_at=this_year)
    moved.adds.add(caller, caller.scope, new)
    asked: list[Any] = []
    search = TenantIndex.search

    def noted(index: TenantIndex, *given: Any, **more: Any) -> Any:
        asked.append(given)
        return search(index, *given, **more)

    monkeypatch.setattr(TenantIndex, "search", noted)
    for when, searches in (("since June 2025", 1), ("in 2026", 1), ("last week", 2), ("in 2026 or in June 2025", 2)):
        asked.clear()
        query = Query(f"When did she go for a walk {when}?", on=TODAY, reference=TODAY, threshold=None)
        hits = moved.memories.search(caller, caller.scope, query)
        assert (when, len(asked), len(hits)) == (when, searches, 10)
        assert all(hit.signals.time >= 0.6 for hit in hits) or searches == 2


def test_what_is_of_the_named_time_need_not_reach_the_usual_threshold(services: Services, caller: Caller) -> None:
    for text, month in (("We hiked in the Dolomites", 7), ("The printer is out of toner", 2)):
        moment = datetime(2026, month, 10, tzinfo=UTC)
        new = NewMemories([Message("user", text)], SubjectNames(user_id="ann"), infer=False, occurred_at=moment)
        services.adds.add(caller, caller.scope, new)

    def found(question: str, threshold: float | None) -> list[str]:
        asked = Query(question, on=TODAY, reference=TODAY, threshold=threshold)
        return [hit.memory.text for hit in services.memories.search(caller, caller.scope, asked)]

    last_summer = "What did she do last summer?"
    assert found(last_summer, None) == ["We hiked in the Dolomites"]
    assert found(last_summer, USUAL_THRESHOLD) == []
    assert "We hiked in the Dolomites" not in found("What did she do?", None)
    assert found(last_summer, 0.0) == ["We hiked in the Dolomites", "The printer is out of toner"]


def test_words_for_a_time_that_was_another_one_when_they_were_told_find_nothing(
    services: Services, caller: Caller
) -> None:
    """Of "last week" tells whatever was told in another week with these words."""
    notes = [Message("user", f"What happened last week: film number {number} was shown") for number in range(80)]
    for texts, moment in (
        (notes, datetime(2024, 5, 1, tzinfo=UTC)),
        ([Message("user", "The boat has a new mast")], datetime(2026, 11, 18, tzinfo=UTC)),
    ):
        new = NewMemories(texts, SubjectNames(user_id="ann"), infer=False, occurred_at=moment)
        services.adds.add(caller, caller.scope, new)
    for question, best in (
        ("What happened last week?", "The boat has a new mast"),
        ("Which film was shown last week?", "The boat has a new mast"),
        ("Which film number 7 was shown in May 2024?", "What happened last week: film number 7 was shown"),
    ):
        asked = Query(question, on=TODAY, reference=TODAY, threshold=None)
        hits = services.memories.search(caller, caller.scope, asked)
        assert (question, hits[0].memory.text) == (question, best)


def test_without_a_time_the_new_gets_a_little(moved: Services, caller: Caller) -> None:
    hits = moved.memories.search(caller, caller.scope, Query("Where did she move?", on=TODAY, reference=TODAY))
    times = {hit.memory.text: hit.signals.time for hit in hits}
    assert 0.02 >= times["I moved to Lima"] > times["I moved to Rome"] > times["I moved to Oslo"] > 0
