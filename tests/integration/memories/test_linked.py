"""Deleting a memory with those that it supersedes: the whole chain, within what the caller reaches, and no more."""

from __future__ import annotations

import pytest

from service.errors import NotFound
from service.filters.ast import EVERYTHING
from service.scope import Caller, SubjectKind
from service.storage.superseding import restate
from service.wiring import Services
from tests.conftest import MakeServices, caller_of
from tests.integration.memories.test_consolidation import ALIKE, brought
from tests.integration.memories.test_extraction import ask, ended, texts
from tests.llm.scripted import ScriptedLLM

pytestmark = pytest.mark.integration


@pytest.fixture
def chain(make_services: MakeServices, llm: ScriptedLLM) -> tuple[Services, Caller]:
    """Services in which Alice moved twice: each memory supersedes the one before; a fourth stands alone."""
    flags = {"provider": "openai", "config": llm.config, "timeout": 5.0}
    services = make_services(worker=True, llm=flags, queue={"poll_interval": 0.1})
    caller = caller_of(services, services.installation.tenants.create("acme").id)
    llm.facts("Alice plays chess")
    ended(services, caller, ask(services, caller, "I play chess", user="bob"))
    llm.facts("Alice lives in Rome")
    ended(services, caller, ask(services, caller, "I live in Rome"))
    for city in ("Oslo", "Lima"):
        # The prompt numbers what it recalled, the nearest first: 0 is the latest move for this query.
        llm.facts({"text": f"Alice lives in {city}", "supersedes": ["0"]})
        before = "Rome" if city == "Oslo" else "Oslo"
        ended(services, caller, ask(services, caller, f"Alice lives in {before} no more: Alice lives in {before}"))
    return services, caller


def test_the_chain_goes_with_its_newest(chain: tuple[Services, Caller]) -> None:
    services, caller = chain
    page = services.memories.list(caller, caller.scope, EVERYTHING, page=1, size=10, on=None)
    by_text = {memory.text: memory.id for memory in page.items}
    assert set(by_text) == {"Alice plays chess", "Alice lives in Rome", "Alice lives in Oslo", "Alice lives in Lima"}
    assert services.memories.delete(caller, caller.scope, by_text["Alice lives in Lima"], linked=True) == 3
    assert texts(services, caller) == ["Alice plays chess"]
    with pytest.raises(NotFound):
        services.memories.get(caller, caller.scope, by_text["Alice lives in Rome"])


def test_one_alone_goes_alone(chain: tuple[Services, Caller]) -> None:
    services, caller = chain
    page = services.memories.list(caller, caller.scope, EVERYTHING, page=1, size=10, on=None)
    by_text = {memory.text: memory.id for memory in page.items}
    assert services.memories.delete(caller, caller.scope, by_text["Alice lives in Lima"]) == 1
    # An older one takes what it superseded, not what superseded it.
    assert services.memories.delete(caller, caller.scope, by_text["Alice lives in Oslo"], linked=True) == 2
    assert texts(services, caller) == ["Alice plays chess"]
    assert services.entities.delete(caller, caller.scope, SubjectKind.USER, "bob") == 1


def test_what_is_only_related_stays(chain: tuple[Services, Caller], llm: ScriptedLLM) -> None:
    services, caller = chain
    related = "Alice loves Lima's old town"
    # Of the memories that it is shown it is related to all and supersedes none.
    llm.facts({"text": related, "linked_memory_ids": ["0", "1", "2"]})
    ended(services, caller, ask(services, caller, "I love Lima's old town"))
    page = services.memories.list(caller, caller.scope, EVERYTHING, page=1, size=10, on=None)
    by_text = {memory.text: memory.id for memory in page.items}
    assert services.memories.delete(caller, caller.scope, by_text[related], linked=True) == 1
    # What was said again is current by itself.
    with services.installation.database.transaction(caller.scope) as connection:
        assert restate(connection, [by_text["Alice lives in Oslo"]]) == 1
    assert services.memories.delete(caller, caller.scope, by_text["Alice lives in Lima"], linked=True) == 1
    assert texts(services, caller) == ["Alice lives in Oslo", "Alice lives in Rome", "Alice plays chess"]


def test_what_a_consolidation_accepted_goes_and_what_is_proposed_stays(services: Services, caller: Caller) -> None:
    accepted, proposed, newest = brought(services, caller, ALIKE)
    consolidations = services.installation.consolidations
    assert len(consolidations.run(caller, caller.scope)) == 2
    consolidations.decide(caller, caller.scope, [accepted], accept=True)
    assert services.memories.delete(caller, caller.scope, newest, linked=True) == 2
    assert services.memories.get(caller, caller.scope, proposed).text == ALIKE[1]
