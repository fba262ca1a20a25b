"""Accounts of connectors: linked to one user, named instead of the user, and never a way to somebody else's memory."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from fastapi.testclient import TestClient

from service.errors import Conflict
from service.records import Identity, Message, NewMemories, SubjectNames
from service.scope import Caller, SubjectKind, TenantId
from service.wiring import Services
from tests.conftest import Postgres, caller_of, principal_of
from tests.integration.api.conftest import MakeClient, assert_error

pytestmark = pytest.mark.integration

SLACK = {"connector": "slack", "account": "U024BE7LH"}


def link(client: TestClient, user_id: str = "alice", **account: str) -> dict[str, Any]:
    """Link an account and return the answer."""
    answer = client.post("/v1/identities/", json=SLACK | account | {"user_id": user_id})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def body(text: str = "likes tea", **more: Any) -> dict[str, Any]:
    """The body of an add."""
    return {"messages": [{"role": "user", "content": text}], "infer": False} | more


def add(client: TestClient, text: str = "likes tea", **more: Any) -> dict[str, Any]:
    """Add verbatim and return the result."""
    answer = client.post("/v3/memories/add/", json=body(text, **more))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["results"][0]
    return found


def found(client: TestClient, path: str = "/v3/memories/", **more: Any) -> list[str]:
    """The texts that a list or search finds."""
    answer = client.post(path, json={"query": "tea", "threshold": 0} | more)
    assert answer.status_code == 200, answer.text
    hits = answer.json()
    return sorted(one["memory"] for one in (hits["results"] if isinstance(hits, dict) else hits))


def test_an_account_names_its_user_in_adds_and_reads(client: TestClient) -> None:
    made = link(client)
    assert set(made) == {"id", "connector", "account", "user_id", "created_at"}
    assert add(client, identity=SLACK)["user_id"] == "alice"
    assert add(client, "drinks coffee too", user_id="alice")["user_id"] == "alice"
    add(client, "Bob likes tea", user_id="bob")
    old = client.post("/v1/memories/", json=body("tea again", identity=SLACK))
    assert old.json()["results"][0]["user_id"] == "alice"
    summary = {"summary": "asked for tea", "channel": "#c", "connector": "slack", "identity": SLACK}
    assert client.post("/tools/store_interaction_summary", json=summary).status_code == 200
    own = ["asked for tea", "drinks coffee too", "likes tea", "tea again"]
    searches = [f"/{version}/memories/search/" for version in ("v1", "v2", "v3")]
    for path in ("/v3/memories/", "/v2/memories/", *searches):
        assert found(client, path, identity=SLACK) == own, path
    context = client.post("/tools/get_user_context", json={"identity": SLACK, "query": "tea"}).json()
    assert set(context["context_snippets"]) <= set(own)
    assert context["context_snippets"]
    assert found(client, identity=SLACK, filters={"user_id": "bob"}) == [], "an account narrows a filter"


def test_two_accounts_are_one_user_and_the_same_account_elsewhere_is_not(client: TestClient) -> None:
    link(client)
    link(client, connector="email", account="alice@example.org")
    add(client, identity={"connector": "email", "account": "alice@example.org"})
    assert found(client, identity=SLACK) == ["likes tea"]
    for other in ({"connector": "Slack"}, {"account": "u024be7lh"}, {"connector": "email"}):
        assert found(client, identity=SLACK | other) == [], "accounts are compared as they are written"


def test_links_are_listed_and_removed(client: TestClient) -> None:
    first, second = link(client), link(client, connector="email", account="a@example.org")
    third = link(client, "bob", account="U2")

    def listed(**query: Any) -> list[Any]:
        answer = client.get("/v1/identities/", params=query)
        assert answer.status_code == 200, answer.text
        assert answer.json()["count"] == len(answer.json()["results"])
        return answer.json()["results"]  # type: ignore[no-any-return]

    assert listed() == [first, second, third]
    assert listed(user_id="alice") == [first, second]
    assert listed(connector="slack") == [first, third]
    assert listed(connector="slack", user_id="bob") == [third]
    assert listed(user_id="nobody") == []
    assert_error(client.get("/v1/identities/", params={"connector": "a\x00"}), 400, "invalid_input")
    paged = client.get("/v1/identities/", params={"page": 2, "page_size": 1}).json()
    assert (paged["count"], paged["results"]) == (3, [second])
    add(client, identity=SLACK)
    assert client.delete(f"/v1/identities/{first['id']}/").json() == {"message": "Identity unlinked"}
    assert listed(user_id="alice") == [second]
    assert found(client, identity=SLACK) == []
    assert found(client, filters={"user_id": "alice"}) == ["likes tea"], "what was stored stays the user's"
    for gone in (first["id"], str(uuid4()), "not-an-id"):
        assert_error(client.delete(f"/v1/identities/{gone}/"), 404, "not_found")


def test_an_unknown_account_is_like_an_unknown_user(client: TestClient, make_client: MakeClient) -> None:
    link(client)
    add(client, identity=SLACK)
    unknown = SLACK | {"account": "U404"}
    assert found(client, identity=unknown) == found(client, filters={"user_id": "nobody"}) == []
    told = assert_error(client.post("/v3/memories/add/", json=body(identity=unknown)), 404, "not_found")
    assert "U404" not in told["detail"]
    entities = client.get("/v1/entities/").json()["results"]
    assert [one["name"] for one in entities] == ["alice"], "an add makes no user of an account"
    bound = make_client(role="agent", users=frozenset({"bob"}))
    for path in ("/v3/memories/add/", "/v1/memories/", "/v3/memories/search/", "/v3/memories/", "/v1/memories/search/"):
        asked = body(query="tea")
        at_top = path.startswith("/v1") or "add" in path
        naming = bound.post(path, json=asked | ({"user_id": "alice"} if at_top else {"filters": {"user_id": "alice"}}))
        for account in (SLACK, unknown):
            answer = bound.post(path, json=asked | {"identity": account})
            assert answer.status_code == naming.status_code == 403, path
            assert answer.json()["detail"] == naming.json()["detail"], path


def test_a_bound_key_may_use_an_account_of_its_user(client: TestClient, make_client: MakeClient) -> None:
    link(client)
    bound = make_client(role="agent", users=frozenset({"alice"}))
    assert add(bound, identity=SLACK)["user_id"] == "alice"
    assert found(bound, identity=SLACK) == ["likes tea"]


def test_a_bound_key_manages_no_accounts_and_neither_does_one_without_the_permission(
    make_client: MakeClient, client: TestClient
) -> None:
    made = link(client)
    for refused in (
        make_client(role="admin", users=frozenset({"alice"})),
        make_client(role="agent"),
        make_client(role="compliance_officer"),
    ):
        assert_error(refused.post("/v1/identities/", json=SLACK | {"user_id": "mallory"}), 403, "forbidden")
        assert_error(refused.get("/v1/identities/"), 403, "forbidden")
        assert_error(refused.delete(f"/v1/identities/{made['id']}/"), 403, "forbidden")
    assert make_client(role="operator").get("/v1/identities/").json()["count"] == 1


def test_an_account_is_never_the_id_of_a_user(client: TestClient, make_client: MakeClient) -> None:
    add(client, user_id="U024BE7LH")
    told = assert_error(client.post("/v1/identities/", json=SLACK | {"user_id": "alice"}), 409, "conflict")
    assert "U024BE7LH" not in told["detail"]
    assert_error(client.post("/v1/identities/", json=SLACK | {"user_id": "U024BE7LH"}), 409, "conflict")
    assert_error(client.post("/v1/identities/", json=SLACK | {"account": "new", "user_id": "new"}), 409, "conflict")
    # And the other way about: nobody can make themselves a user of the id that an account has.
    link(client, account="U7")
    writer = make_client(role="agent")
    assert_error(writer.post("/v3/memories/add/", json=body(user_id="U7")), 409, "conflict")
    assert found(client, filters={"user_id": "U7"}) == []
    assert_error(client.post("/v1/keys/", json={"role": "agent", "users": ["U7"]}), 409, "conflict")
    assert_error(client.post("/v1/identities/", json={"connector": "x", "account": "y", "user_id": "U7"}), 409)
    assert client.get("/v1/identities/").json()["count"] == 1


def test_an_account_stands_for_one_user(client: TestClient) -> None:
    made = link(client)
    assert link(client) == made, "linking it again changes nothing"
    assert_error(client.post("/v1/identities/", json=SLACK | {"user_id": "mallory"}), 409, "conflict")
    assert client.get("/v1/identities/").json()["results"] == [made]
    client.delete(f"/v1/identities/{made['id']}/")
    assert link(client, "mallory")["user_id"] == "mallory"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"identity": {"connector": "slack"}}, "body.identity.account"),
        ({"identity": {"connector": "", "account": "x"}}, "identity.connector: must be a string of 1 to 255"),
        ({"identity": {"connector": "slack", "account": "x" * 256}}, "identity.account: must be a string of 1 to 255"),
        ({"identity": {"connector": "slack", "account": "x\x00"}}, "identity.account: null characters"),
        ({"identity": "slack:U1"}, "body.identity"),
        ({"identity": SLACK, "user_id": "bob"}, "identity: stands beside user_id"),
    ],
)
def test_what_is_wrong_is_told_by_its_field(client: TestClient, change: dict[str, Any], told: str) -> None:
    link(client)
    assert told in assert_error(client.post("/v3/memories/add/", json=body(**change)), 400)["detail"]
    if "user_id" not in change:
        assert told in assert_error(client.post("/v3/memories/search/", json={"query": "x", **change}), 400)["detail"]
        assert told in assert_error(client.post("/v3/memories/", json=change), 400)["detail"]
    summary = {"summary": "s", "channel": "c", "connector": "slack"}
    for path, asked in (("/tools/get_user_context", {}), ("/tools/store_interaction_summary", summary)):
        assert told in assert_error(client.post(path, json=asked | change), 400)["detail"]


def test_another_tenant_sees_no_account(client: TestClient, services: Services, make_client: MakeClient) -> None:
    made = link(client)
    add(client, identity=SLACK)
    rival = services.installation.tenants.create("rival").id
    other = make_client(key=principal_of(services, rival)[1])
    assert other.get("/v1/identities/").json()["results"] == []
    assert_error(other.delete(f"/v1/identities/{made['id']}/"), 404, "not_found")
    assert found(other, identity=SLACK) == []
    assert_error(other.post("/v3/memories/add/", json=body(identity=SLACK)), 404, "not_found")
    assert link(other, "zoe")["user_id"] == "zoe", "each tenant has its own accounts"
    assert found(client, identity=SLACK) == ["likes tea"]


def test_the_trail_names_surrogates_only(
    client: TestClient, services: Services, tenant: TenantId, database: Postgres, caller: Caller
) -> None:
    made = link(client, "alice-canary", connector="slack", account="account-canary")
    identity = {"connector": "slack", "account": "account-canary"}
    link(client, "alice-canary", connector="slack", account="account-canary")
    client.post("/v1/identities/", json=identity | {"user_id": "mallory-canary"})
    client.get("/v1/identities/", params={"user_id": "alice-canary"})
    add(client, identity=identity)
    client.delete(f"/v1/identities/{made['id']}/")
    client.post("/v3/memories/add/", json=body(identity=identity))
    with services.installation.database.transaction(caller.scope) as connection:
        name = (SubjectKind.USER, "alice-canary")
        surrogate = services.installation.subjects.find(connection, caller.scope, [name])[name]
    with psycopg.connect(database.admin) as connection:
        dumped = repr(connection.execute("SELECT * FROM audit").fetchall())
        rows = connection.execute(
            "SELECT event, outcome, subject_ids FROM audit WHERE tenant_id = %s ORDER BY seq", [tenant]
        ).fetchall()
        stored = repr(connection.execute("SELECT * FROM identities").fetchall())
    assert "canary" not in dumped + stored
    own = [surrogate]
    assert [row for row in rows if row[0] not in ("key:created", "tenant:created")] == [
        ("identity:linked", "done", own),
        ("identity:linked", "done", own),
        ("identity:linked", "refused", []),
        ("identities:listed", "done", own),
        ("memory:added", "done", own),
        ("identity:unlinked", "done", own),
        ("memory:added", "not_found", []),
    ]


def test_accounts_leave_with_their_user(client: TestClient, database: Postgres) -> None:
    link(client)
    link(client, "bob", account="U2")
    add(client, identity=SLACK)
    assert client.delete("/v2/entities/user/alice/").status_code == 200
    assert [one["user_id"] for one in client.get("/v1/identities/").json()["results"]] == ["bob"]
    assert_error(client.post("/v3/memories/add/", json=body(identity=SLACK)), 404, "not_found")
    with psycopg.connect(database.admin) as connection:
        assert connection.execute("SELECT count(*) FROM identities").fetchone() == (1,)
    assert link(client, "carol")["user_id"] == "carol"


def test_accounts_are_sealed(client: TestClient, database: Postgres) -> None:
    link(client, "alice", account="account-canary")
    with psycopg.connect(database.admin) as connection:
        rows = connection.execute("SELECT account, account_mac, name_mac FROM identities").fetchall()
    assert all(b"canary" not in value for row in rows for value in row)


def test_of_a_link_and_an_add_at_once_one_wins(services: Services, caller: Caller) -> None:
    """Whichever comes first: never is there a user whose id is an account that stands for somebody else."""
    for number in range(12):
        account = f"U{number}"
        start = threading.Barrier(2)

        def linked(account: str = account, start: threading.Barrier = start) -> str:
            start.wait(10)
            try:
                services.identities.link(caller, caller.scope, Identity("slack", account), "alice")
            except Conflict:
                return "refused"
            return "done"

        def added(account: str = account, start: threading.Barrier = start) -> str:
            new = NewMemories([Message("user", f"I am {account}")], SubjectNames(user_id=account), infer=False)
            start.wait(10)
            try:
                services.adds.add(caller, caller.scope, new)
            except Conflict:
                return "refused"
            return "done"

        with ThreadPoolExecutor(2) as pool:
            results = [pool.submit(linked), pool.submit(added)]
            ended = {one.result(60) for one in results}
        assert ended == {"done", "refused"}, account


def test_an_add_through_an_account_that_is_erased_meanwhile_makes_nobody(services: Services, caller: Caller) -> None:
    account = Identity("slack", "U1")
    services.identities.link(caller, caller.scope, account, "alice")
    services.entities.delete(caller, caller.scope, SubjectKind.USER, "alice")
    new = NewMemories([Message("user", "x")], SubjectNames(), infer=False)
    with pytest.raises(Exception, match="no user is linked"):
        services.identities.adding(caller, caller.scope, new, account)
    assert services.entities.list(caller, caller.scope, page=1, size=5).total == 0


def test_mcp_names_an_account_too(services: Services, tenant: TenantId, caller: Caller) -> None:
    from service.mcp import handlers
    from service.mcp.schemas import (
        AddMemoryInput,
        GetMemoriesInput,
        GetUserContextInput,
        IdentityInput,
        SearchMemoriesInput,
        StoreInteractionSummaryInput,
    )

    services.identities.link(caller, caller.scope, Identity(**SLACK), "alice")
    named = IdentityInput(**SLACK)
    handlers.add_memory(services, caller, AddMemoryInput(text="tea", identity=named, infer=False))
    stored = StoreInteractionSummaryInput(summary="asked for tea", channel="c", connector="slack", identity=named)
    handlers.store_interaction_summary(services, caller, stored)
    listed = handlers.get_memories(services, caller, GetMemoriesInput(identity=named))
    assert {one.user_id for one in listed.results} == {"alice"}
    assert listed.count == 2
    assert handlers.search_memories(services, caller, SearchMemoriesInput(query="tea", identity=named)).results
    assert handlers.get_user_context(services, caller, GetUserContextInput(query="tea", identity=named)).snippets
    bound = caller_of(services, tenant, role="agent", users=frozenset({"bob"}))
    with pytest.raises(Exception, match="bound to a user"):
        handlers.get_user_context(services, bound, GetUserContextInput(query="tea", identity=named))
