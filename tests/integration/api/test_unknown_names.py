"""What a route does not know, in its query or its body, is refused by name; Mem0's clients may send what they send."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

from service.api.deps import GuardedRoute, Mem0Route
from tests.integration.api.conftest import assert_error
from tests.isolation.attack.surface import app, guarded_routes

pytestmark = pytest.mark.integration

_PROJECT = "/api/v1/orgs/organizations/{org_id}/projects/"
#: The routes that the official clients, or programs made for Mem0's own server, call. All others are ours.
OF_MEM0 = {
    *("/v1/ping/", "/v3/memories/add/", "/v3/memories/search/", "/v3/memories/", "/v1/memories/"),
    *("/v1/memories/{memory_id}/", "/v1/memories/{memory_id}/history/", "/v1/memories/search/", "/v2/memories/"),
    *("/v2/memories/search/", "/v1/batch/", "/v1/entities/", "/v1/entities/{entity_type}/{name:path}/"),
    *("/v2/entities/{entity_type}/{name:path}/", "/v1/exports/", "/v1/exports/get/", "/v1/summary/", "/v1/feedback/"),
    *("/v1/events/", "/v1/event/{event_id}/", _PROJECT, f"{_PROJECT}{{project_id}}/"),
    *(f"{_PROJECT}{{project_id}}/members/", "/api/v1/webhooks/projects/{project_id}/"),
    *("/api/v1/webhooks/{webhook_id}/", "/v2/profiles/jobs/", "/v2/profiles/jobs/{job_id}/", "/v2/profiles/settings/"),
    *("/v2/entities/user/{user_id:path}/profile/", "/memories", "/memories/{memory_id}"),
    *("/memories/{memory_id}/history", "/search", "/entities", "/entities/{entity_type}/{name:path}"),
}
SENT = "org_id=o&project_id=p&source=CLI&output_format=v1.1&version=v2&async_mode=true"
OURS = {where: route for where, route in guarded_routes().items() if not isinstance(route, Mem0Route)}
THEIRS = {where: route for where, route in guarded_routes().items() if isinstance(route, Mem0Route)}


def filled(path: str) -> str:
    """A path with something in the place of each parameter."""
    return re.sub(r"\{[^}]*\}", "x", path)


def documented(method: str, path: str) -> Any:
    """What the document says of a route."""
    return app().openapi()["paths"][path.replace(":path}", "}")][method.lower()]


def parameters_of(method: str, path: str) -> dict[str, bool]:
    """The parameters of a route's query, and whether each is a list."""
    return {
        one["name"]: "array" in str(one["schema"])
        for one in documented(method, path).get("parameters", ())
        if one["in"] == "query"
    }


def body_of(method: str, path: str) -> dict[str, Any] | None:
    """The shape of a route's body where it is JSON."""
    content = documented(method, path).get("requestBody", {}).get("content", {})
    found: dict[str, Any] | None = content.get("application/json", {}).get("schema")
    return found


def told(client: TestClient, method: str, url: str, **more: Any) -> str:
    """The detail of an answer, empty where it is no error."""
    answer = client.request(method, url, **more)
    return str(answer.json().get("detail", "")) if answer.status_code >= 400 else ""


def test_what_is_not_of_mem0_s_contract_is_strict() -> None:
    assert {path for _, path in THEIRS} == OF_MEM0
    assert len(OURS) > 30
    assert all(isinstance(route, GuardedRoute) for route in OURS.values())


def test_every_route_of_ours_refuses_a_parameter_that_it_does_not_know(client: TestClient) -> None:
    for method, path in OURS:
        answer = client.request(method, f"{filled(path)}?nonsense=1")
        detail = assert_error(answer, 400, "invalid_input")["detail"]
        assert detail.startswith("query.nonsense: there is no such parameter here"), f"{method} {path}"
        known = ", ".join(sorted(parameters_of(method, path)))
        assert detail.endswith(f"known are {known}" if known else "none is known"), f"{method} {path}"


def test_every_route_knows_the_parameters_that_it_documents(client: TestClient) -> None:
    asked = 0
    for method, path in guarded_routes():
        for name, is_list in parameters_of(method, path).items():
            once = told(client, method, f"{filled(path)}?{name}=x")
            assert "no such parameter" not in once, f"{method} {path} {name}"
            twice = told(client, method, f"{filled(path)}?{name}=x&{name}=y")
            repeated = twice == f"query.{name}: is given more than once, and is no list"
            assert repeated is not is_list, f"{method} {path} {name}"
            asked += 1
    assert asked > 60


def test_every_route_of_ours_refuses_a_field_that_it_does_not_know(client: TestClient) -> None:
    asked = 0
    for method, path in OURS:
        if body_of(method, path) is not None:
            answer = client.request(method, filled(path), json={"nonsense": 1})
            detail = assert_error(answer, 400, "invalid_input")["detail"]
            assert detail.startswith("body.nonsense: there is no such field here"), f"{method} {path}"
            asked += 1
    assert asked > 12


def test_no_body_of_ours_has_a_part_that_takes_what_it_does_not_know() -> None:
    schemas = app().openapi()["components"]["schemas"]

    def objects(schema: Any, seen: frozenset[str] = frozenset()) -> Iterator[tuple[str, dict[str, Any]]]:
        if isinstance(schema, list):
            for one in schema:
                yield from objects(one, seen)
        elif isinstance(schema, dict):
            name = str(schema.get("$ref", "")).rpartition("/")[2]
            if name and name not in seen:
                yield name, schemas[name]
                yield from objects(schemas[name], seen | {name})
            for key, one in schema.items():
                if key != "examples":
                    yield from objects(one, seen)

    checked = set()
    for method, path in OURS:
        for name, shape in objects(body_of(method, path)):
            if "properties" in shape:
                assert shape.get("additionalProperties") is False, f"{method} {path}: {name}"
                checked.add(name)
    assert len(checked) > 12


def test_every_route_of_mem0_s_contract_takes_what_its_clients_send(client: TestClient) -> None:
    for method, path in THEIRS:
        assert "no such parameter" not in told(client, method, f"{filled(path)}?{SENT}"), f"{method} {path}"
        assert "narrow" not in told(client, method, f"{filled(path)}?{SENT}"), f"{method} {path}"


def test_every_route_of_mem0_s_contract_refuses_whose_memories_are_meant_by_a_slip(client: TestClient) -> None:
    for method, path in THEIRS:
        for slip in ("user=bob", "userId=bob", "user_id%5B%5D=bob", "filter=x", "run=1", "User_Id=bob"):
            answer = client.request(method, f"{filled(path)}?{slip}")
            assert answer.status_code == 400, f"{method} {path}?{slip}"
            assert slip.partition("=")[0].replace("%5B%5D", "[]") in assert_error(answer, 400)["detail"]


def test_what_is_narrowed_by_its_query_refuses_what_else_it_does_not_know(client: TestClient) -> None:
    strict = {one for one in THEIRS if "sparkle" in told(client, one[0], f"{filled(one[1])}?sparkle=1")}
    lists = {("GET", "/v1/memories/"), ("GET", "/memories"), ("GET", "/v1/events/")}
    # Clients put what they please into the query of other deletions: an email, to remove a member.
    assert strict == lists | {("DELETE", "/v1/memories/"), ("DELETE", "/memories")}


SLIPS = ["user=bob", "conversation=42", "run=2026-05", "limit=1", "agentid=x", "page_size=1", "RUN_ID=r"]


@pytest.mark.parametrize("path", ["/v1/memories/", "/memories"])
def test_a_deletion_with_a_slip_deletes_nothing(client: TestClient, path: str, subtests: pytest.Subtests) -> None:
    """What it names beside is a part of all that would go without it."""
    body = {"messages": [{"role": "user", "content": "tea"}], "user_id": "alice", "infer": False}
    assert client.post("/v3/memories/add/", json=body).status_code == 200
    for slip in SLIPS:
        with subtests.test(slip):
            detail = assert_error(client.delete(f"{path}?user_id=alice&{slip}"), 400, "scope_required")["detail"]
            assert detail.startswith(f"{slip.partition('=')[0]}: cannot narrow a deletion")
            assert client.post("/v3/memories/", json={}).json()["count"] == 1
    assert client.delete(f"{path}?user_id=alice&{SENT}").status_code == 200
    assert client.post("/v3/memories/", json={}).json()["count"] == 0


@pytest.mark.parametrize(
    ("query", "detail"),
    [
        ("actr=x", "query.actr: there is no such parameter here; known are activity, agent_id, app_id, connector,"),
        ("principal=x", "query.principal: there is no such parameter here, is principal_id meant?; known are"),
        ("user=alice", "query.user: there is no such parameter here, is user_id meant?; known are"),
        ("outcom=refused&usr=a", "query.outcom: there is no such parameter here, is outcome meant?; query.usr: "),
        ("org_id=o", "query.org_id: there is no such parameter here"),
        ("a%E2%80%AEb%00=1", "query.a?b?: there is no such parameter here"),
        ("x" * 200 + "=1", f"query.{'x' * 64}: there is no such parameter here"),
        ("from=2026-01-01&from=2026-02-01", "query.from: is given more than once, and is no list"),
    ],
)
def test_an_auditor_is_told_of_a_filter_that_is_none(client: TestClient, query: str, detail: str) -> None:
    for path in ("/v1/audit/", "/v1/audit/export/"):
        assert assert_error(client.get(f"{path}?{query}"), 400, "invalid_input")["detail"].startswith(detail)


@pytest.mark.parametrize(
    "path",
    [
        *("/v3/memories/search/", "/v3/memories/", "/v1/memories/search/", "/v2/memories/", "/v2/memories/search/"),
        *("/search", "/v1/exports/", "/v1/exports/get/", "/v1/summary/"),
        *("/v3/memories/add/", "/v1/memories/", "/memories"),
    ],
)
def test_a_body_of_mem0_s_contract_with_a_slip_is_not_about_everybody(client: TestClient, path: str) -> None:
    for slip in ("filter", "Filters", "user", "userId", "agent_ids"):
        answer = client.post(path, json={"query": "tea", "messages": [], slip: "bob"})
        detail = assert_error(answer, 400, "invalid_input")["detail"]
        assert detail.startswith(f"body.{slip}: there is no such field here")


def test_beside_the_id_itself_a_field_of_a_client_is_ignored(client: TestClient) -> None:
    body = {"messages": [{"role": "user", "content": "tea"}], "user_id": "alice", "user": {"plan": "free"}}
    assert client.post("/v3/memories/add/", json={**body, "infer": False}).status_code == 200


def test_a_tool_is_told_of_a_filter_that_is_none(client: TestClient) -> None:
    """A context of all connectors would pass for one of the connector that was meant."""
    answer = client.post("/tools/get_user_context", json={"user_id": "alice", "connector": ["slack"]})
    assert "is connectors meant?" in assert_error(answer, 400, "invalid_input")["detail"]
    linked = {"connector": "slack", "account": "U1", "user_id": "alice"}
    assert_error(client.post("/v1/identities/", json=linked | {"acount": "U2"}), 400, "invalid_input")
    named = {"query": "tea", "identity": {"connector": "slack", "account": "U1", "team": "T1"}}
    assert "identity.team" in assert_error(client.post("/v3/memories/search/", json=named), 400)["detail"]


def test_names_without_number_are_refused_before_they_are_compared(client: TestClient) -> None:
    many = "&".join(f"{quote('naïve')}{number}=1" for number in range(2_000))
    for method, path in (("POST", "/v3/memories/search/"), ("GET", "/v1/audit/")):
        assert_error(client.request(method, f"{path}?{many}", json={"query": "tea"}), 400, "invalid_input")
    body = {"query": "tea", **{f"naïve{number}": 1 for number in range(20_000)}}
    assert client.post("/v3/memories/search/", json=body).status_code == 200
