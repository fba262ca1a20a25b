"""Extraction obeys the tenant's own settings, and no caller can put others in their place."""

from __future__ import annotations

import pytest

from service.audit.tenant_details import ProjectField
from service.filters.parse import parse_filter
from service.memories.actions import Query
from service.records import Category, EventStatus, Message, NewMemories, SubjectNames
from service.scope import Caller
from service.wiring import Services
from tests.conftest import MakeServices, caller_of
from tests.integration.memories.extracting import ask, ended
from tests.llm.scripted import ScriptedLLM

pytestmark = pytest.mark.integration


@pytest.fixture
def services(make_services: MakeServices, llm: ScriptedLLM) -> Services:
    """Services with the LLM and a worker."""
    flags = {"provider": "openai", "config": llm.config, "retry_wait": 0.05}
    return make_services(worker=True, llm=flags, queue={"poll_interval": 0.1})


@pytest.fixture
def caller(services: Services) -> Caller:
    """An admin of a tenant."""
    return caller_of(services, services.installation.tenants.create("acme").id)


def settle(services: Services, caller: Caller, **settings: object) -> None:
    """Change settings of the caller's tenant."""
    own = str(caller.principal.tenant_id)
    changes = {ProjectField(name): value for name, value in settings.items()}
    services.projects.update(caller, caller.scope, own, own, changes)


def test_the_tenant_s_instructions_stand_in_its_prompts_and_in_no_other_s(
    services: Services, caller: Caller, llm: ScriptedLLM
) -> None:
    other = caller_of(services, services.installation.tenants.create("rival").id)
    settle(services, caller, custom_instructions="Only food.", agent_custom_instructions="Only tools.")
    ended(services, caller, ask(services, caller, "I love tea"))
    ended(services, other, ask(services, other, "I love tea"))
    of_agent = NewMemories([Message("user", "Use the API")], SubjectNames(agent_id="bot"))
    ended(services, caller, services.adds.add(caller, caller.scope, of_agent))
    mine, theirs, agents = (request.prompt for request in llm.requests)
    assert "## Custom Instructions\nOnly food." in mine
    assert "Custom Instructions" not in theirs
    assert "## Custom Instructions\nOnly tools." in agents


def test_categories_are_assigned_validated_and_filterable(services: Services, caller: Caller, llm: ScriptedLLM) -> None:
    settle(services, caller, custom_categories=(Category("health", "allergies"), Category("travel")))
    llm.facts(
        {"text": "Allergic to nuts", "categories": ["Health", "root"]},
        {"text": "Flies to Oslo", "categories": "travel"},
        {"text": "Plays chess", "categories": {"health": True}},
    )
    new = NewMemories([Message("user", "…")], SubjectNames(user_id="alice"), categories=("chat",))
    done = ended(services, caller, services.adds.add(caller, caller.scope, new))
    assert done.status is EventStatus.SUCCEEDED
    assert '"allergies"' in llm.requests[0].section("Custom Instructions")

    def found(category: str) -> list[tuple[str, tuple[str, ...]]]:
        where = parse_filter({"categories": {"contains": category}})
        hits = services.memories.search(caller, caller.scope, Query("what is known?", where=where))
        return sorted((hit.memory.text, hit.memory.categories) for hit in hits)

    assert found("health") == [("Allergic to nuts", ("chat", "health"))]
    assert found("travel") == [("Flies to Oslo", ("chat", "travel"))]
    assert found("root") == []
    assert len(found("chat")) == 3


def test_extracted_memories_say_so_and_where_they_come_from(
    services: Services, caller: Caller, llm: ScriptedLLM
) -> None:
    done = ended(services, caller, ask(services, caller, "I love tea"))
    memory = services.memories.get(caller, caller.scope, done.results[0].memory_id)
    found = memory.provenance
    assert (found.principal_id, found.event_id, found.extracted) == (caller.principal.id, done.id, True)
