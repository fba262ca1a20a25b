"""Fixtures of exports and imports."""

from __future__ import annotations

from datetime import UTC, date, datetime
from uuid import UUID

import pytest

from service.memories.actions import Edit
from service.records import Message, NewMemories, SubjectNames
from service.scope import Caller
from service.wiring import Services
from tests.conftest import caller_of
from tests.integration.memories.adding import add
from tests.llm.fixtures import llm

__all__ = ["llm"]


@pytest.fixture
def lived(services: Services, caller: Caller) -> list[UUID]:
    """A tenant with memories that were added, changed, linked, deleted, alike, expiring and said by somebody."""
    both = SubjectNames(user_id="alice", agent_id="helper", app_id="slack", run_id="r-1")
    scope = caller.scope
    rich = NewMemories(
        [Message("user", "Ich wohne in Ålesund 北", "Alice"), Message("assistant", "noted")],
        both,
        {"place": {"city": "Ålesund"}, "labels": ["preference"], "n": 2**53 + 1},
        infer=False,
        categories=("home", "北"),
        occurred_at=datetime(2021, 5, 4, 3, 2, 1, 987654, tzinfo=UTC),
        expires_on=date(2099, 1, 2),
    )
    ids = [result.memory_id for result in services.adds.add(caller, scope, rich).results]
    ids += [one.memory_id for one in add(services, caller, "first draft", "doomed", user="bob").results]
    services.memories.update(caller, scope, ids[2], Edit(text="second draft"))
    services.memories.update(caller, scope, ids[2], Edit(metadata={"final": True}))
    services.memories.delete(caller, scope, ids[3])
    # Two that become alike by an edit keep their own ids.
    ids += [one.memory_id for one in add(services, caller, "tea", "coffee", user="bob").results]
    services.memories.update(caller, scope, ids[5], Edit(text="tea"))
    return ids


@pytest.fixture
def rival(services: Services) -> Caller:
    """A caller of another tenant."""
    return caller_of(services, services.installation.tenants.create("rival").id)
