"""No fact is lost because of another one: what is extracted is stored, and what is current is not hidden."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from service import clock
from service.filters.parse import parse_filter
from service.memories.actions import Edit
from service.memories.batch import BatchEdit
from service.records import Change
from service.scope import Caller, SubjectKind
from service.wiring import Services
from tests.conftest import MakeServices, caller_of
from tests.integration.memories.extracting import ask, ended
from tests.integration.memories.test_consolidation import ALIKE, brought
from tests.integration.memories.test_latest_only import link, listed, one
from tests.integration.memories.test_quarantine import review
from tests.llm.scripted import Request, ScriptedLLM

pytestmark = [pytest.mark.integration, pytest.mark.postgres_suite]

ALLERGY = "Alice is allergic to penicillin"
LONG_AGO, LATER = datetime(2020, 1, 1, tzinfo=UTC), datetime(2025, 6, 1, tzinfo=UTC)


@pytest.fixture
def extracting(make_services: MakeServices, llm: ScriptedLLM) -> tuple[Services, Caller]:
    """Services whose worker asks the scripted LLM, and a caller."""
    flags = {"provider": "openai", "config": llm.config, "timeout": 5.0}
    services = make_services(worker=True, llm=flags, queue={"poll_interval": 0.1})
    return services, caller_of(services, services.installation.tenants.create("acme").id)


def test_the_same_words_elsewhere_keep_no_fact_out(extracting: tuple[Services, Caller], llm: ScriptedLLM) -> None:
    services, caller = extracting
    others: list[dict[str, Any]] = [
        {"run": "s1"},
        {},
        {"metadata": {"a": 1}},
        {"expires_on": clock.today() + timedelta(days=1)},
    ]
    for more in others:
        llm.facts(ALLERGY)
        event = ended(services, caller, ask(services, caller, "I am allergic to penicillin", **more))
        assert [one.change for one in event.results] == [Change.ADD], more
        assert event.notes["dropped"] == {}
    llm.facts(ALLERGY)
    event = ended(services, caller, ask(services, caller, "penicillin, I said"))
    assert [one.change for one in event.results] == [Change.NONE]
    assert (event.notes["stored"], event.notes["dropped"]) == (0, {"known": 1})
    services.entities.delete(caller, caller.scope, SubjectKind.RUN, "s1")
    later = services.memories.list(
        caller,
        caller.scope,
        parse_filter({"user_id": "alice"}),
        page=1,
        size=9,
        on=clock.today() + timedelta(days=2),
    )
    assert [(one.text, one.metadata) for one in later.items] == [(ALLERGY, {"a": 1}), (ALLERGY, {})]


def test_what_is_known_supersedes_what_it_makes_untrue(extracting: tuple[Services, Caller], llm: ScriptedLLM) -> None:
    services, caller = extracting
    llm.facts("Alice lives in Rome", "Alice lives in Lisbon")
    ended(services, caller, ask(services, caller, "I live in Rome and Lisbon"))
    # It names both; no memory supersedes itself.
    llm.facts({"text": "Alice lives in Rome", "attributed_to": "user", "supersedes": ["0", "1"]})
    event = ended(services, caller, ask(services, caller, "Lisbon is over, I live in Rome"))
    assert [one.change for one in event.results] == [Change.NONE]
    assert listed(services, caller) == ["Alice lives in Rome"]


@pytest.mark.parametrize("batch", [False, True])
def test_what_superseded_an_old_text_does_not_hide_the_new_one(services: Services, caller: Caller, batch: bool) -> None:
    rome, oslo = one(services, caller, "Alice lives in Rome"), one(services, caller, "Alice lives in Oslo")
    link(services, caller, oslo, [rome])

    def change(edit: Edit) -> None:
        if batch:
            services.batches.update(caller, caller.scope, [BatchEdit(rome, edit)])
        else:
            services.memories.update(caller, caller.scope, rome, edit)

    change(Edit(metadata={"checked": True}))
    change(Edit(text="Alice lives in Rome"))
    assert listed(services, caller) == ["Alice lives in Oslo"]
    change(Edit(text=ALLERGY))
    assert listed(services, caller) == [ALLERGY, "Alice lives in Oslo"]


@pytest.mark.parametrize("changed", [0, 2], ids=["older", "newest"])
def test_what_was_proposed_of_an_old_text_is_forgotten(services: Services, caller: Caller, changed: int) -> None:
    memories = brought(services, caller, ALIKE)
    consolidations = services.installation.consolidations
    assert len(consolidations.run(caller, caller.scope)) == 2
    services.memories.update(caller, caller.scope, memories[changed], Edit(text=ALLERGY))
    assert len(consolidations.proposed(caller.scope)) == (1 if changed == 0 else 0)
    consolidations.decide(caller, caller.scope, None, accept=True)
    assert ALLERGY in listed(services, caller)
    assert len(listed(services, caller)) == (2 if changed == 0 else 3)


def test_an_old_chat_that_is_added_afterwards_hides_nothing(
    extracting: tuple[Services, Caller], llm: ScriptedLLM
) -> None:
    services, caller = extracting
    llm.facts("Alice takes 2 mg of warfarin")
    ended(services, caller, ask(services, caller, "I take 2 mg of warfarin", occurred_at=LATER))
    old = {"text": "Alice takes 5 mg of warfarin", "attributed_to": "user", "supersedes": ["0"]}
    llm.facts(old)
    ended(services, caller, ask(services, caller, "I take 5 mg of warfarin", occurred_at=LONG_AGO))
    assert listed(services, caller) == ["Alice takes 2 mg of warfarin", "Alice takes 5 mg of warfarin"]
    # Said in the same chat, or later, it is what is so now.
    llm.facts({**old, "text": "Alice takes 3 mg of warfarin", "supersedes": ["0", "1"]})
    ended(services, caller, ask(services, caller, "I take 3 mg of warfarin", occurred_at=LATER))
    assert listed(services, caller) == ["Alice takes 3 mg of warfarin"]


def test_what_is_changed_while_the_llm_thinks_is_not_hidden(
    extracting: tuple[Services, Caller], llm: ScriptedLLM
) -> None:
    services, caller = extracting
    llm.facts("Alice lives in Rome")
    (home,) = ended(services, caller, ask(services, caller, "I live in Rome")).results

    def meanwhile(_: Request) -> str:
        services.memories.update(caller, caller.scope, home.memory_id, Edit(text=ALLERGY))
        return json.dumps({"memory": [{"id": "0", "text": "Alice moved to Oslo", "supersedes": ["0"]}]})

    llm.by_default(meanwhile)
    ended(services, caller, ask(services, caller, "I moved from Rome to Oslo"))
    assert listed(services, caller) == [ALLERGY, "Alice moved to Oslo"]


def test_what_is_changed_until_a_review_is_approved_is_not_hidden(
    extracting: tuple[Services, Caller], llm: ScriptedLLM
) -> None:
    services, caller = extracting
    llm.facts("Alice lives in Rome")
    (home,) = ended(services, caller, ask(services, caller, "I live in Rome")).results
    review(services, caller)
    llm.facts({"text": "Alice moved to Oslo", "supersedes": ["0"]})
    (moved,) = ended(services, caller, ask(services, caller, "I moved from Rome to Oslo")).results
    services.memories.update(caller, caller.scope, home.memory_id, Edit(text=ALLERGY))
    services.reviews.approve(caller, caller.scope, [moved.memory_id])
    assert listed(services, caller) == [ALLERGY, "Alice moved to Oslo"]


def test_a_time_to_come_hides_nothing_that_is_said_again(services: Services, caller: Caller) -> None:
    rome = one(services, caller, "Alice lives in Rome")
    ahead = clock.now() + timedelta(days=400)
    link(services, caller, one(services, caller, "Alice lives in Oslo", occurred_at=ahead), [rome])
    assert one(services, caller, "Alice lives in Rome") == rome
    assert listed(services, caller) == ["Alice lives in Oslo", "Alice lives in Rome"]


@pytest.mark.parametrize("required", [False, True], ids=["at-once", "reviewed"])
def test_what_is_said_again_with_its_old_time_is_not_current_again(
    extracting: tuple[Services, Caller], llm: ScriptedLLM, required: bool
) -> None:
    services, caller = extracting
    llm.facts("Alice lives in Rome")
    (rome,) = ended(services, caller, ask(services, caller, "I live in Rome", occurred_at=LONG_AGO)).results
    link(services, caller, one(services, caller, "Alice lives in Oslo", occurred_at=LATER), [rome.memory_id])
    review(services, caller, required=required)
    for when, current in ((LONG_AGO, ["Alice lives in Oslo"]), (None, ["Alice lives in Oslo", "Alice lives in Rome"])):
        llm.facts("Alice lives in Rome")
        (again,) = ended(services, caller, ask(services, caller, "I live in Rome", occurred_at=when)).results
        assert (again.change, again.memory_id) == (Change.NONE, rome.memory_id)
        assert listed(services, caller) == current


def test_two_of_an_answer_that_say_the_same_supersede_what_both_name(
    extracting: tuple[Services, Caller], llm: ScriptedLLM
) -> None:
    services, caller = extracting
    llm.facts("Alice lives in Rome", "Alice works at Acme")
    ended(services, caller, ask(services, caller, "I live in Rome and work at Acme"))
    llm.facts(
        {"text": "Alice moved to Oslo for Initech.", "supersedes": ["0"]},
        {"text": "Alice moved to Oslo for Initech", "supersedes": ["1"]},
    )
    event = ended(services, caller, ask(services, caller, "I moved to Oslo for Initech"))
    assert [result.change for result in event.results] == [Change.ADD, Change.NONE]
    assert listed(services, caller) == ["Alice moved to Oslo for Initech."]
