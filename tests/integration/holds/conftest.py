"""Two people who may place and release holds, and small words for what the tests do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import dict_row

from service.filters.parse import parse_filter
from service.records import Message, NewMemories, SubjectNames
from service.retention.holds import Hold, NewHold
from service.scope import Caller, TenantId
from service.wiring import Services
from tests.conftest import Postgres, caller_of

Place = Callable[..., Hold]
Add = Callable[..., UUID]


@pytest.fixture
def ada(services: Services, tenant: TenantId) -> Caller:
    """A compliance officer."""
    return caller_of(services, tenant, role="compliance_officer", owner="ada@example.org")


@pytest.fixture
def ben(services: Services, tenant: TenantId) -> Caller:
    """Another one."""
    return caller_of(services, tenant, role="compliance_officer", owner="ben@example.org")


@pytest.fixture
def add(services: Services, caller: Caller) -> Add:
    """Add one memory and return its id."""

    def one(text: str = "I love tea", user: str = "alice", **more: Any) -> UUID:
        names = SubjectNames(user_id=user, agent_id=more.pop("agent", None))
        event = services.adds.add(caller, caller.scope, NewMemories([Message("user", text)], names, more, infer=False))
        return event.results[0].memory_id

    return one


@pytest.fixture
def place(services: Services, ada: Caller) -> Place:
    """Place a hold as Ada: on a user, on memories, or on a filter as it comes over the wire."""

    def one(name: str = "case-1", **what: Any) -> Hold:
        where = parse_filter(what["filters"]) if "filters" in what else None
        names = SubjectNames(user_id=what.get("user"), agent_id=what.get("agent"))
        new = NewHold(name, "litigation", subjects=names, where=where, memory_ids=what.get("memory_ids", ()))
        return services.installation.holds.place(ada, ada.scope, new)

    return one


@pytest.fixture
def trail(database: Postgres, tenant: TenantId) -> Callable[[], list[dict[str, Any]]]:
    """The tenant's audit rows, the oldest first."""

    def rows() -> list[dict[str, Any]]:
        with psycopg.connect(database.admin, row_factory=dict_row) as connection:
            return connection.execute("SELECT * FROM audit WHERE tenant_id = %s ORDER BY seq", [tenant]).fetchall()

    return rows


@pytest.fixture
def members(services: Services, ada: Caller) -> Callable[[Hold], set[UUID]]:
    """The memories that a hold covers."""

    def of(hold: Hold) -> set[UUID]:
        page = services.installation.holds.members(ada, ada.scope, hold.stored.id, page=1, size=1000)
        return {memory_id for memory_id, _ in page.items}

    return of
