"""Keys that are bound to a connector: what they write carries its name, and no other's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from service.auth.keys import Grant
from service.errors import Forbidden
from service.filters.parse import parse_filter
from service.memories.batch import BatchEdit
from service.memories.edits import Edit
from service.policy.table import ROLES
from service.records import Memory, Message, NewMemories, SubjectNames
from service.scope import Caller, TenantId
from service.wiring import Services
from tests.conftest import Postgres

pytestmark = pytest.mark.integration

Make = Callable[[str | None], Caller]


@pytest.fixture
def bound(services: Services, tenant: TenantId) -> Make:
    """Make callers with keys that are bound to a connector."""

    def make(connector: str | None) -> Caller:
        minted = services.installation.keys.mint_for_installation(tenant, Grant(ROLES["agent"], connector=connector))
        principal = services.keys.find_principal(minted.secret)
        assert principal is not None
        return Caller(principal, request_id="r")

    return make


def add(services: Services, caller: Caller, text: str, **metadata: Any) -> Memory:
    """Add a memory for alice and return it."""
    new = NewMemories([Message("user", text)], SubjectNames(user_id="alice"), metadata, infer=False)
    event = services.adds.add(caller, caller.scope, new)
    return services.memories.get(caller, caller.scope, event.results[0].memory_id)


def test_what_it_adds_carries_its_connector(services: Services, bound: Make) -> None:
    slack = bound("slack")
    assert add(services, slack, "one").metadata == {"connector": "slack"}
    assert add(services, slack, "two", connector="slack", channel="#sales").metadata == {
        "connector": "slack",
        "channel": "#sales",
    }
    where = parse_filter({"metadata": {"connector": "slack"}})
    assert services.memories.list(slack, slack.scope, where, page=1, size=10, on=None).total == 2
    assert add(services, bound(None), "three", connector="jira").metadata == {"connector": "jira"}
    assert add(services, slack, "four", connector=None).metadata == {"connector": "slack"}


@pytest.mark.parametrize("named", ["jira", "Slack", "slack "])
def test_naming_another_connector_is_refused(
    named: Any, services: Services, bound: Make, tenant: TenantId, database: Postgres
) -> None:
    slack = bound("slack")
    mine = add(services, slack, "one")
    with pytest.raises(Forbidden, match="connector"):
        add(services, slack, "two", connector=named)
    with pytest.raises(Forbidden, match="connector"):
        services.memories.update(slack, slack.scope, mine.id, Edit(metadata={"connector": named}))
    (told,) = services.batches.update(slack, slack.scope, [BatchEdit(mine.id, Edit(metadata={"connector": named}))])
    assert isinstance(told, Forbidden)
    with psycopg.connect(database.admin) as connection:
        reasons = connection.execute(
            "SELECT detail ->> 'reason', connector FROM audit WHERE tenant_id = %s AND event = 'access:denied'",
            [tenant],
        ).fetchall()
        assert reasons == [("connector", "slack")] * 3
        assert connection.execute("SELECT count(*) FROM memories").fetchone() == (1,)


def test_an_edit_does_not_change_what_a_memory_came_through(services: Services, bound: Make) -> None:
    slack, jira = bound("slack"), bound("jira")
    theirs = add(services, jira, "one", ticket=1)
    edited = services.memories.update(slack, slack.scope, theirs.id, Edit(text="two"))
    assert edited.metadata == {"connector": "jira", "ticket": 1}
    edited = services.memories.update(slack, slack.scope, theirs.id, Edit(metadata={"ticket": 2}))
    assert edited.metadata == {"connector": "jira", "ticket": 2}
    services.batches.update(slack, slack.scope, [BatchEdit(theirs.id, Edit(metadata={"ticket": 3}))])
    edited = services.memories.get(slack, slack.scope, theirs.id)
    assert edited.metadata == {"connector": "jira", "ticket": 3}
    edited = services.memories.update(slack, slack.scope, theirs.id, Edit(metadata={"connector": None}, merge=True))
    assert edited.metadata == {"connector": "jira", "ticket": 3}
    nobodys = add(services, bound(None), "three")
    edited = services.memories.update(slack, slack.scope, nobodys.id, Edit(metadata={"a": 1}))
    assert edited.metadata == {"connector": "slack", "a": 1}


def test_it_reads_what_came_through_others(services: Services, bound: Make) -> None:
    slack, jira = bound("slack"), bound("jira")
    theirs = add(services, jira, "one")
    assert services.memories.get(slack, slack.scope, theirs.id).text == "one"
    everything = services.memories.list(slack, slack.scope, parse_filter(None), page=1, size=10, on=None)
    assert everything.total == 1
