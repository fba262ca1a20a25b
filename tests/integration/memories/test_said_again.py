"""What is said again: of several memories that say it the one that stands for them is known, and stays what is so."""

from __future__ import annotations

from uuid import UUID

import pytest

from service.memories.actions import Edit
from service.records import Change
from service.scope import Caller
from service.storage.superseding import Link, propose
from service.wiring import Services
from tests.integration.memories.adding import add
from tests.integration.memories.test_latest_only import link, listed, one

pytestmark = [pytest.mark.integration, pytest.mark.postgres_suite]


def alike(services: Services, caller: Caller) -> tuple[UUID, UUID]:
    """Two memories that say the same, the older one first."""
    older, newer = one(services, caller, "I am vegetarian"), one(services, caller, "Something else")
    services.memories.update(caller, caller.scope, newer, Edit(text="I'm vegetarian"))
    return older, newer


@pytest.mark.parametrize("text", ["I am vegetarian", "I'm vegetarian."])
def test_what_is_said_again_undoes_no_consolidation(services: Services, caller: Caller, text: str) -> None:
    older, newer = alike(services, caller)
    consolidations = services.installation.consolidations
    assert consolidations.run(caller, caller.scope) == [Link(older, newer)]
    consolidations.decide(caller, caller.scope, None, accept=True)
    (again,) = add(services, caller, text).results
    assert (again.change, again.memory_id, again.text) == (Change.NONE, newer, "I'm vegetarian")
    assert listed(services, caller) == ["I'm vegetarian"]
    assert consolidations.run(caller, caller.scope) == []


def test_said_again_after_a_change_the_one_that_stood_for_all_is_current(services: Services, caller: Caller) -> None:
    older, newer = alike(services, caller)
    services.installation.consolidations.run(caller, caller.scope)
    services.installation.consolidations.decide(caller, caller.scope, None, accept=True)
    link(services, caller, one(services, caller, "I eat meat"), [newer])
    assert listed(services, caller) == ["I eat meat"]
    (again,) = add(services, caller, "I am vegetarian").results
    assert (again.change, again.memory_id) == (Change.NONE, newer)
    assert listed(services, caller) == ["I eat meat", "I'm vegetarian"]
    # Changed by hand it stands for nothing any more, and the older one is what says it.
    services.memories.update(caller, caller.scope, newer, Edit(text="I am vegan"))
    (again,) = add(services, caller, "I am vegetarian").results
    assert again.memory_id == older
    assert listed(services, caller) == ["I am vegan", "I am vegetarian", "I eat meat"]


def test_what_is_said_again_is_not_hidden_by_what_was_proposed_before(services: Services, caller: Caller) -> None:
    rome, oslo = one(services, caller, "Alice lives in Rome"), one(services, caller, "Alice lives in Oslo")
    with services.installation.database.transaction(caller.scope) as connection:
        assert propose(connection, caller.scope, [Link(rome, oslo, "changed")])
    add(services, caller, "Alice lives in Rome")
    consolidations = services.installation.consolidations
    assert consolidations.proposed(caller.scope) == []
    assert consolidations.decide(caller, caller.scope, None, accept=True) == []
    assert listed(services, caller) == ["Alice lives in Oslo", "Alice lives in Rome"]
