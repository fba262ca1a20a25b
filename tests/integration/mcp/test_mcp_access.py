"""Who may do what over MCP: permissions, tenants, bound keys, and the trail that all of it leaves."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from sqlalchemy import text

from service.auth.keys import Grant
from service.policy.table import ROLES
from service.scope import Permission, Scope, TenantId, service_principal
from service.wiring import Services
from tests.conftest import Postgres, principal_of
from tests.integration.mcp.conftest import MakeWire
from tests.integration.mcp.served import Wire, serve
from tests.integration.mcp.test_mcp_tools import added, texts, tools_of

pytestmark = pytest.mark.integration

READING = {
    "search_memories",
    "get_memories",
    "get_memory",
    "list_entities",
    "list_events",
    "get_event_status",
    "get_user_context",
}
WRITING = {"add_memory", "update_memory", "store_interaction_summary"}
DELETING = {"delete_memory", "delete_all_memories"}


def trail(services: Services, tenant: TenantId) -> list[Any]:
    """The tenant's audit rows, the oldest first."""
    with services.installation.database.transaction(Scope.of(service_principal(tenant))) as connection:
        return list(connection.execute(text("SELECT * FROM audit ORDER BY seq")))


def test_a_key_sees_the_tools_that_it_may_use(wire_of: MakeWire) -> None:
    assert set(tools_of(wire_of(role="reader"))) == READING
    assert set(tools_of(wire_of(role="agent"))) == READING | WRITING | DELETING
    assert set(tools_of(wire_of(role="compliance_officer"))) == READING | DELETING | {"delete_entities"}
    assert set(tools_of(wire_of(role="operator"))) == set()
    assert wire_of(role="operator").modern("resources/templates/list").json()["result"]["resourceTemplates"] == []
    assert wire_of(role="reader").legacy("tools/list").json()["result"]["tools"]


def test_a_tool_that_is_not_shown_is_refused_and_the_refusal_recorded(
    services: Services, tenant: TenantId, wire: Wire, wire_of: MakeWire
) -> None:
    reader = wire_of(role="reader")
    everything = set(tools_of(wire))
    memory_id = added(wire, "stays")
    for name in everything - READING:
        before = len(trail(services, tenant))
        # Without arguments: who may not call a tool does not learn what it wants either.
        assert reader.refused(name).startswith("forbidden: "), name
        rows = trail(services, tenant)[before:]
        assert [(row.event, row.outcome, row.face) for row in rows] == [("access:denied", "refused", "mcp")], name
    assert reader.refused("delete_memory", memory_id=memory_id).startswith("forbidden: ")
    assert reader.done("get_memory", memory_id=memory_id)["memory"] == "stays"
    # Nor whether there could be such a thing.
    for uri in ("memory://users/alice", "memory://agents/x"):
        before = len(trail(services, tenant))
        profile = wire_of(role="operator").modern("resources/read", {"uri": uri}).json()
        assert profile["error"]["data"] == {"code": "forbidden"}
        assert [row.event for row in trail(services, tenant)[before:]][-1] == "access:denied", uri


def test_every_call_is_in_the_trail_with_its_client(services: Services, tenant: TenantId, wire: Wire) -> None:
    memory_id = added(wire, "Alice likes jazz")
    wire.done("search_memories", query="music")
    wire.done("get_user_context", query="music", user_id="alice")
    wire.modern("resources/read", {"uri": "memory://users/alice"})
    wire.legacy("tools/call", {"name": "get_memory", "arguments": {"memory_id": memory_id}})
    rows = trail(services, tenant)
    told = [(row.event, row.face, row.client.partition("/")[0]) for row in rows[-5:]]
    assert told == [
        ("memory:added", "mcp", "wire"),
        ("memory:searched", "mcp", "wire"),
        ("memory:searched", "mcp", "wire"),
        ("memory:listed", "mcp", "wire"),
        ("memory:read", "mcp", "python-httpx"),
    ]
    assert [str(one) for one in rows[-4].result_ids] == [memory_id]
    assert all("jazz" not in str(row) and "music" not in str(row) for row in rows)


def test_two_tenants_do_not_see_each_other(services: Services, wire: Wire, wire_of: MakeWire) -> None:
    other = wire_of(of=services.installation.tenants.create("globex").id)
    memory_id = added(wire, "Alice's secret plan")
    event_id = wire.done("list_events")["results"][0]["id"]
    added(other, "Alice of globex", user_id="alice")
    assert other.refused("get_memory", memory_id=memory_id).startswith("not_found: ")
    assert other.refused("update_memory", memory_id=memory_id, text="x").startswith("not_found: ")
    assert other.refused("delete_memory", memory_id=memory_id).startswith("not_found: ")
    assert other.refused("get_event_status", event_id=event_id).startswith("not_found: ")
    for filters in ({"user_id": "*"}, {"memory_ids": [memory_id]}, {"NOT": {"user_id": "zoe"}}):
        assert "Alice's secret plan" not in texts(other.done("search_memories", query="secret plan", filters=filters))
        assert "Alice's secret plan" not in texts(other.done("get_memories", filters=filters))
    assert "secret" not in other.done("get_user_context", query="secret plan", user_id="alice")["context"]
    assert "secret" not in other.modern("resources/read", {"uri": "memory://users/alice"}).text
    assert other.done("list_entities")["results"][0]["total_memories"] == 1
    assert other.done("delete_all_memories", user_id="alice")["deleted"] == 1
    assert wire.done("get_memory", memory_id=memory_id)["memory"] == "Alice's secret plan"


def test_a_bound_key_reaches_its_users_only(
    services: Services, tenant: TenantId, wire: Wire, wire_of: MakeWire
) -> None:
    of_bob = added(wire, "Bob's salary", user_id="bob")
    of_alice = added(wire, "Alice's salary")
    bound = wire_of(role="agent", users=frozenset({"alice"}))
    assert texts(bound.done("search_memories", query="salary")) == ["Alice's salary"]
    assert texts(bound.done("get_memories")) == ["Alice's salary"]
    assert bound.done("get_memory", memory_id=of_alice)["user_id"] == "alice"
    assert bound.refused("get_memory", memory_id=of_bob).startswith("not_found: ")
    assert bound.refused("delete_memory", memory_id=of_bob).startswith("not_found: ")
    for tool, arguments in (
        ("search_memories", {"query": "salary", "filters": {"user_id": "bob"}}),
        ("get_memories", {"filters": {"OR": [{"user_id": "bob"}, {"user_id": "alice"}]}}),
        ("get_user_context", {"query": "salary", "user_id": "bob"}),
        ("add_memory", {"text": "x", "user_id": "bob", "infer": False}),
        ("store_interaction_summary", {"summary": "x", "channel": "c", "connector": "c", "user_id": "bob"}),
        ("delete_all_memories", {"user_id": "bob"}),
    ):
        assert bound.refused(tool, **arguments).startswith("forbidden: "), tool
        assert trail(services, tenant)[-1].event == "access:denied", tool
    assert [one["name"] for one in bound.done("list_entities")["results"]] == ["alice"]
    listed = bound.modern("resources/list").json()["result"]
    assert [one["uri"] for one in listed["resources"]] == ["memory://users/alice"]
    several = wire_of(role="agent", users=frozenset({"alice", "bob"}))
    assert "user_id" in tools_of(several)["add_memory"]["inputSchema"]["properties"]
    assert several.refused("add_memory", text="x", agent_id="a", infer=False).startswith("forbidden: ")


def test_a_key_of_one_connector_speaks_for_that_one(services: Services, tenant: TenantId, url: str) -> None:
    grant = Grant(ROLES["agent"] | {Permission.MEMORY_READ}, connector="slack")
    wire = Wire(url, services.installation.keys.mint_for_installation(tenant, grant).secret)
    assert "connector" not in tools_of(wire)["store_interaction_summary"]["inputSchema"]["properties"]
    stored = wire.done("store_interaction_summary", summary="s", channel="#c", user_id="alice")
    assert wire.done("get_memory", memory_id=stored["id"])["metadata"]["connector"] == "slack"
    told = wire.refused("store_interaction_summary", summary="s", channel="#c", user_id="alice", connector="mail")
    assert told.startswith("forbidden: ")
    assert trail(services, tenant)[-1].event == "access:denied"


def test_fifty_callers_at_once_get_their_own_answers(services: Services, url: str) -> None:
    tenants = [services.installation.tenants.create(f"tenant-{number}").id for number in range(5)]
    wires = [Wire(url, principal_of(services, one)[1]) for one in tenants]

    def work(number: int) -> tuple[int, list[str]]:
        wire, user = wires[number % 5], f"user{number}"
        added(wire, f"The locker of {user} is L{number}", user_id=user)
        return number, texts(wire.done("search_memories", query="locker", filters={"user_id": user}))

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(work, range(50)))
    assert answers == [(number, [f"The locker of user{number} is L{number}"]) for number in range(50)]
    assert [wire.done("get_memories")["count"] for wire in wires] == [10] * 5


def test_a_call_that_takes_too_long_is_answered(services: Services, tenant: TenantId, database: Postgres) -> None:
    with serve(lambda: services, services.settings, call_seconds=1.0) as url:
        wire = Wire(url, principal_of(services, tenant)[1])
        assert wire.done("get_memories")["count"] == 0
        with psycopg.connect(database.admin) as blocker:
            blocker.execute("LOCK TABLE memories IN ACCESS EXCLUSIVE MODE")
            told = wire.refused("get_memories")
        assert told.startswith("unavailable: no answer within 1 s")
        assert wire.done("get_memories")["count"] == 0
