"""No fact is lost because of another one: what is extracted is stored, and what is current is not hidden."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
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
from tests.llm.scripted import ScriptedLLM

pytestmark = [pytest.mark.integration, pytest.mark.postgres_suite, pytest.mark.xdist_group("extraction")]


@pytest.fixture
def llm() -> Iterator[ScriptedLLM]:
    """A scripted LLM over HTTP."""
    with ScriptedLLM() as scripted:
        yield scripted


@pytest.fixture
def extracting(make_services: MakeServices, llm: ScriptedLLM) -> tuple[Services, Caller]:
    """Services whose worker asks the scripted LLM, and a caller."""
    flags = {"provider": "openai", "config": llm.config, "timeout": 5.0}
    services = make_services(worker=True, llm=flags, queue={"poll_interval": 0.1})
    return services, caller_of(services, services.installation.tenants.create("acme").id)


def test_the_same_words_elsewhere_keep_no_fact_out(extracting: tuple[Services, Caller], llm: ScriptedLLM) -> None:
    services, caller = extracting
    fact = "Alice is allergic to penicillin"
    others: list[dict[str, Any]] = [
        {"run": "s1"},
        {},
        {"metadata": {"a": 1}},
        {"expires_on": clock.today() + timedelta(days=1)},
    ]
    for more in others:
        llm.facts(fact)
        event = ended(services, caller, ask(services, caller, "I am allergic to penicillin", **more))
        assert [one.change for one in event.results] == [Change.ADD], more
        assert event.notes["dropped"] == {}
    llm.facts(fact)
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
    assert [(one.text, one.metadata) for one in later.items] == [(fact, {"a": 1}), (fact, {})]


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
    change(Edit(text="Alice is allergic to penicillin"))
    assert listed(services, caller) == ["Alice is allergic to penicillin", "Alice lives in Oslo"]


@pytest.mark.parametrize("changed", [0, 2], ids=["older", "newest"])
def test_what_was_proposed_of_an_old_text_is_forgotten(services: Services, caller: Caller, changed: int) -> None:
    memories = brought(services, caller, ALIKE)
    consolidations = services.installation.consolidations
    assert len(consolidations.run(caller, caller.scope)) == 2
    services.memories.update(caller, caller.scope, memories[changed], Edit(text="Alice is allergic to penicillin"))
    assert len(consolidations.proposed(caller.scope)) == (1 if changed == 0 else 0)
    consolidations.decide(caller, caller.scope, None, accept=True)
    assert "Alice is allergic to penicillin" in listed(services, caller)
    assert len(listed(services, caller)) == (2 if changed == 0 else 3)
