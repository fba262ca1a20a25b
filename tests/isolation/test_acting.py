"""For whom a call is made: system agents name their user on both faces, bound keys no other; the trail has both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest

from service.auth.keys import Grant
from service.errors import Forbidden
from service.main import create_app
from service.policy.table import NEEDS, ROLES, names_its_user
from service.records import Message, NewMemories, SubjectNames
from service.scope import Action, Caller, Permission, Principal, TenantId
from service.wiring import Services
from tests.clients.serving import serving
from tests.conftest import MakeServices, Postgres
from tests.integration.mcp.served import Wire
from tests.isolation.issuer import Issuer
from tests.llm.scripted import ScriptedLLM

pytestmark = pytest.mark.integration

#: Everything that may reach a person's memories.
ALL = frozenset(Permission) - {Permission.KEY_MANAGE}


@pytest.fixture
def url(services: Services) -> Iterator[str]:
    """A served instance."""
    with serving(create_app(services)) as url:
        yield url


Rest = Callable[..., httpx.Client]


@pytest.fixture
def rest(services: Services, tenant: TenantId, url: str) -> Iterator[Rest]:
    """Make REST clients with keys of their own; `user` is named in the header."""
    clients: list[httpx.Client] = []

    def make(user: str | bytes | None = None, **more: Any) -> httpx.Client:
        secret = key(services, tenant, **more)
        headers: dict[str, Any] = {"Authorization": f"Token {secret}"}
        if user is not None:
            headers["X-Acting-User"] = user
        clients.append(httpx.Client(base_url=url, headers=headers, timeout=30))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def key(services: Services, tenant: TenantId, *, system: bool = True, **more: Any) -> str:
    """The secret of a new key, by default a system agent's."""
    grant = Grant(more.pop("permissions", ALL), must_name_user=system, **more)
    return services.installation.keys.mint_for_installation(tenant, grant).secret


def added(client: httpx.Client, text: str, user: str) -> httpx.Response:
    """Add a memory verbatim."""
    body = {"messages": [{"role": "user", "content": text}], "user_id": user, "infer": False}
    return client.post("/v3/memories/add/", json=body)


def texts(client: httpx.Client, **filters: Any) -> list[str]:
    """The texts that a client lists."""
    answer = client.post("/v3/memories/", json={"filters": filters})
    assert answer.status_code == 200, answer.text
    return sorted(one["memory"] for one in answer.json()["results"])


def trail(database: Postgres, tenant: TenantId, event: str) -> list[tuple[UUID, UUID | None, list[UUID], Any]]:
    """Principal, acting subject, subjects and detail of the rows of an event."""
    with psycopg.connect(database.admin) as connection:
        return connection.execute(
            "SELECT principal_id, acting_subject_id, subject_ids, detail FROM audit"
            " WHERE tenant_id = %s AND event = %s ORDER BY seq",
            [tenant, event],
        ).fetchall()


def subjects(database: Postgres) -> int:
    """How many subjects there are in all."""
    with psycopg.connect(database.admin) as connection:
        row = connection.execute("SELECT count(*) FROM subjects").fetchone()
        assert row is not None
        return int(row[0])


def test_a_system_agent_must_name_its_user_on_every_call_on_memories(
    rest: Rest, tenant: TenantId, database: Postgres
) -> None:
    silent = rest()
    memory = "/v1/memories/0190a1b2-3c4d-7e5f-8a9b-0c1d2e3f4a5b/"
    calls = [
        ("POST", "/v3/memories/add/", {"messages": [{"role": "user", "content": "x"}], "user_id": "alice"}),
        ("POST", "/v3/memories/search/", {"query": "x", "filters": {"user_id": "alice"}}),
        ("POST", "/v3/memories/", {"filters": {"user_id": "alice"}}),
        ("GET", memory, None),
        ("PUT", memory, {"text": "x"}),
        ("DELETE", memory, None),
        ("GET", f"{memory}history/", None),
        ("DELETE", "/v1/memories/?user_id=alice", None),
        ("GET", "/v1/entities/", None),
        ("DELETE", "/v2/entities/user/alice/", None),
        ("GET", "/v1/events/", None),
        ("GET", "/v1/event/0190a1b2-3c4d-7e5f-8a9b-0c1d2e3f4a5b/", None),
    ]
    for method, path, body in calls:
        answer = silent.request(method, path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (400, "acting_user_required"), f"{method} {path}"
        assert "X-Acting-User" in answer.json()["detail"]
    refused = trail(database, tenant, "access:denied")
    assert [row[3]["reason"] for row in refused] == ["acting"] * len(calls)
    # What is no call on memories needs no user.
    assert silent.get("/v1/ping/").status_code == 200
    assert silent.get("/v1/audit/").status_code == 200


def test_every_action_on_memories_and_entities_needs_a_named_user(tenant: TenantId) -> None:
    agent = Principal(tenant, UUID(int=9), frozenset(Permission), must_name_user=True)
    need = {action for action in Action if not names_its_user(agent, action)}
    assert need == {a for a in Action if (NEEDS[a] or "").split(":")[0] in ("memory", "entity")}
    assert len(need) >= 12
    assert all(names_its_user(agent.acting_as("alice", None), action) for action in Action)


def test_the_named_user_is_all_that_a_system_agent_reaches(rest: Rest, tenant: TenantId, database: Postgres) -> None:
    admin = rest(system=False)
    for user in ("alice", "bob"):
        assert added(admin, f"about {user}", user).status_code == 200
    bobs = admin.post("/v3/memories/", json={"filters": {"user_id": "bob"}}).json()["results"][0]["id"]
    alice = rest("alice")
    assert texts(alice) == ["about alice"]
    hits = alice.post("/v3/memories/search/", json={"query": "about bob", "threshold": 0.0}).json()["results"]
    assert [hit["memory"] for hit in hits] == ["about alice"]
    missing = alice.get("/v1/memories/0190a1b2-3c4d-7e5f-8a9b-0c1d2e3f4a5b/").json()
    for method, path in (("GET", ""), ("PUT", ""), ("DELETE", ""), ("GET", "history/")):
        body = {"text": "x"} if method == "PUT" else None
        answer = alice.request(method, f"/v1/memories/{bobs}/{path}", json=body)
        assert answer.status_code == 404
        assert answer.json()["detail"] == missing["detail"]
    assert added(alice, "x", "bob").status_code == 403
    assert alice.post("/v3/memories/", json={"filters": {"user_id": "bob"}}).status_code == 403
    assert alice.delete("/v2/entities/user/bob/").status_code == 404
    assert texts(admin, user_id="bob") == ["about bob"]


def test_principal_and_acting_subject_are_in_the_trail_of_reads_and_writes(
    rest: Rest, services: Services, tenant: TenantId, database: Postgres
) -> None:
    agent = rest("newcomer")
    # The user is not known yet: the first write makes it, and its row says for whom all the same.
    assert added(agent, "likes tea", "newcomer").status_code == 200
    assert agent.post("/v3/memories/search/", json={"query": "tea"}).status_code == 200
    keys = services.installation.keys.list_for_installation(tenant)
    for event in ("memory:added", "memory:searched"):
        ((principal, acting, about, _),) = trail(database, tenant, event)
        assert principal == keys[-1].id
        assert acting is not None
        assert about == [acting]


def test_reading_for_somebody_unknown_makes_nobody(rest: Rest, database: Postgres) -> None:
    before = subjects(database)
    stranger = rest("nobody-yet")
    assert texts(stranger) == []
    assert stranger.get("/v1/entities/").json()["count"] == 0
    assert stranger.get("/v1/events/").json()["count"] == 0
    assert stranger.delete("/v1/memories/?user_id=nobody-yet").json()["count"] == 0
    assert subjects(database) == before


def test_a_bound_key_that_names_another_user_is_refused(rest: Rest, tenant: TenantId, database: Postgres) -> None:
    both = frozenset({"alice", "bob"})
    wrong = rest("carol", system=False, users=both)
    for method, path in (("POST", "/v3/memories/"), ("GET", "/v1/ping/"), ("GET", "/v1/entities/")):
        answer = wrong.request(method, path, json={} if method == "POST" else None)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert [row[3]["reason"] for row in trail(database, tenant, "access:denied")] == ["user"] * 3
    admin = rest(system=False)
    for user in both:
        added(admin, f"about {user}", user)
    # One of its own narrows it to that one.
    assert texts(rest("bob", system=False, users=both)) == ["about bob"]
    assert texts(rest(system=False, users=both)) == ["about alice", "about bob"]
    # Also a key that need not name anybody may.
    assert texts(rest("alice", system=False)) == ["about alice"]


@pytest.mark.parametrize("name", [b"", b"*", b"%00", b"%ff", "\u00e9".encode(), b"\xe9", b"x" * 256, b"%20"])
def test_what_is_no_name_is_refused(name: bytes, rest: Rest) -> None:
    answer = rest(name).post("/v3/memories/", json={})
    assert answer.status_code == 400
    assert "X-Acting-User" in answer.json()["detail"]


def test_two_names_are_refused_and_any_name_can_be_written(rest: Rest, url: str) -> None:
    twice = rest()
    answer = twice.post("/v3/memories/", json={}, headers=[("X-Acting-User", "alice"), ("X-Acting-User", "bob")])
    assert answer.status_code == 400
    agent = rest("Ren%C3%A9%20%25")
    assert added(agent, "x", "Ren\u00e9 %").status_code == 200
    assert texts(agent, user_id="Ren\u00e9 %") == ["x"]


def test_over_mcp_the_argument_names_the_user_of_every_tool(
    services: Services, tenant: TenantId, url: str, rest: Rest, database: Postgres
) -> None:
    admin = rest(system=False)
    ids = {}
    for user in ("alice", "bob"):
        ids[user] = added(admin, f"about {user}", user).json()["results"][0]["id"]
    wire = Wire(url, key(services, tenant))
    for tool in wire.modern("tools/list").json()["result"]["tools"]:
        assert "user_id" in tool["inputSchema"]["required"], tool["name"]
    assert wire.refused("get_memory", memory_id=ids["alice"]).startswith("acting_user_required")
    assert wire.refused("search_memories", query="x").startswith("acting_user_required")
    assert wire.refused("delete_all_memories", agent_id="a").startswith("acting_user_required")
    assert wire.refused("get_memories", user_id=7).startswith("acting_user_required")
    assert wire.done("get_memory", memory_id=ids["alice"], user_id="alice")["memory"] == "about alice"
    assert wire.refused("get_memory", memory_id=ids["bob"], user_id="alice").startswith("not_found")
    assert wire.refused("delete_memory", memory_id=ids["bob"], user_id="alice").startswith("not_found")
    assert [one["id"] for one in wire.done("get_memories", user_id="alice")["results"]] == [ids["alice"]]
    assert wire.refused("get_memories", user_id="alice", filters={"user_id": "bob"}).startswith("forbidden")
    found = wire.done("get_user_context", user_id="bob", query="about whom")
    assert [one["id"] for one in found["snippets"]] == [ids["bob"]]
    stored = wire.done("add_memory", text="from MCP", user_id="bob", infer=False)
    assert stored["status"] == "SUCCEEDED"
    row = trail(database, tenant, "memory:added")[-1]
    assert row[1] is not None
    assert row[2] == [row[1]]
    read = wire.modern("resources/read", {"uri": "memory://users/alice"}).json()["result"]
    assert "about alice" in read["contents"][0]["text"]
    assert wire.modern("resources/list").json()["result"]["resources"] == []


def test_over_mcp_the_header_counts_too(services: Services, tenant: TenantId, url: str, rest: Rest) -> None:
    admin = rest(system=False)
    ids = [added(admin, f"about {user}", user).json()["results"][0]["id"] for user in ("alice", "bob")]
    secret = key(services, tenant)

    def call(tool: str, **arguments: Any) -> Any:
        params = {"name": tool, "arguments": arguments}
        return Wire(url, secret).modern("tools/call", params, x_acting_user="alice").json()["result"]

    assert call("get_memory", memory_id=ids[0])["structuredContent"]["memory"] == "about alice"
    assert call("get_memory", memory_id=ids[1])["content"][0]["text"].startswith("not_found")
    assert call("add_memory", text="x", user_id="bob", infer=False)["content"][0]["text"].startswith("forbidden")
    assert call("add_memory", text="x", infer=False)["structuredContent"]["status"] == "SUCCEEDED"
    assert Wire(url, secret).modern("tools/list", x_acting_user="*").status_code == 400


def test_an_extraction_goes_on_for_whom_it_was_asked(make_services: MakeServices, database: Postgres) -> None:
    with ScriptedLLM() as llm:
        settings = {"provider": "openai", "model": "scripted", "api_key": "none", "base_url": llm.url}
        services = make_services(worker=False, llm=settings)
        tenant = services.installation.tenants.create("acme").id
        principal = services.keys.find_principal(key(services, tenant))
        assert principal is not None
        caller = services.acting.narrowed(Caller(principal, request_id="r"), "alice")
        new = NewMemories([Message("user", "I moved to Lisbon")], SubjectNames(user_id="alice"))
        event = services.adds.add(caller, caller.scope, new)
        services.jobs.handlers()["extract"](str(tenant), str(event.id))
    rows = [*trail(database, tenant, "memory:add_requested"), *trail(database, tenant, "memory:added")]
    assert len(rows) == 2
    assert {row[0] for row in rows} == {principal.id}
    assert {row[1] for row in rows} == {rows[0][2][0]}


def test_tokens_of_system_agents_are_held_to_the_same(make_services: MakeServices) -> None:
    with Issuer() as issuer:
        services = make_services(
            server={"public_url": "https://memory.example.com"},
            auth={"cache_seconds": 0, "oidc": {**issuer.oidc, "system_claim": "system"}},
        )
        services.installation.tenants.create("acme")
        with serving(create_app(services)) as url, httpx.Client(base_url=url, timeout=30) as client:
            token = issuer.token(aud="https://memory.example.com", scope="memory:read memory:write", system=True)
            client.headers["Authorization"] = f"Bearer {token}"
            answer = client.post("/v3/memories/", json={})
            assert (answer.status_code, answer.json()["code"]) == (400, "acting_user_required")
            client.headers["X-Acting-User"] = "bob"
            assert added(client, "about bob", "bob").status_code == 200
            assert texts(client) == ["about bob"]
            # A user's own token names nobody but that user.
            own = issuer.token(aud="https://memory.example.com", scope="memory:read")
            client.headers["Authorization"] = f"Bearer {own}"
            assert client.post("/v3/memories/", json={}).status_code == 403


def test_a_system_agent_makes_no_key_that_need_not_name_anybody(services: Services, tenant: TenantId) -> None:
    principal = services.keys.find_principal(key(services, tenant, permissions=ROLES["admin"]))
    assert principal is not None
    caller = Caller(principal, request_id="r")
    with pytest.raises(Forbidden, match="system agent"):
        services.keys.mint(caller, caller.scope, Grant(ROLES["reader"]))
    # Bound to several it would read them in one call, and nobody would stand in the trail.
    with pytest.raises(Forbidden, match="system agent"):
        services.keys.mint(caller, caller.scope, Grant(ROLES["reader"], users=frozenset({"alice", "bob"})))
    services.keys.mint(caller, caller.scope, Grant(ROLES["reader"], must_name_user=True))
    services.keys.mint(caller, caller.scope, Grant(ROLES["reader"], users=frozenset({"alice"})))
