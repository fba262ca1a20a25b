"""The two calls of a connector over REST: what is stored is there at once and found, within the bounds of the key."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from service import clock
from service.auth.keys import Grant
from service.errors import InvalidInput
from service.policy.table import ROLES
from service.scope import Scope, TenantId, service_principal
from service.wiring import Services
from tests.conftest import caller_of
from tests.integration.api.conftest import MakeClient, assert_error

pytestmark = pytest.mark.integration

STORE, CONTEXT = "/tools/store_interaction_summary", "/tools/get_user_context"
SUMMARY = {
    "user_id": "alice",
    "summary": "Alice prefers yearly billing and has a ticket about a late delivery",
    "channel": "#billing",
    "connector": "slack",
    "labels": ["preference", "escalation"],
}


def stored(client: TestClient, **more: Any) -> str:
    """Store the summary and return the memory's id."""
    answer = client.post(STORE, json=SUMMARY | more)
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"status", "memory_id"}
    assert answer.json()["status"] == "ok"
    memory_id: str = answer.json()["memory_id"]
    return memory_id


def snippets(client: TestClient, **body: Any) -> list[str]:
    """The snippets of a context."""
    answer = client.post(CONTEXT, json=body)
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"context_snippets"}
    found: list[str] = answer.json()["context_snippets"]
    return found


def test_a_summary_is_stored_at_once_with_its_id(client: TestClient) -> None:
    memory_id = stored(client)
    memory = client.get(f"/v1/memories/{memory_id}/").json()
    assert (memory["memory"], memory["user_id"]) == (SUMMARY["summary"], "alice")
    labels = ["preference", "escalation", "interaction_summary"]
    assert memory["metadata"] == {"connector": "slack", "channel": "#billing", "labels": labels}
    assert stored(client) == memory_id, "the same summary is one memory"
    plain = stored(client, labels=None, summary="Nothing else")
    assert client.get(f"/v1/memories/{plain}/").json()["metadata"]["labels"] == ["interaction_summary"]


def test_the_context_needs_a_user_and_nothing_else(client: TestClient) -> None:
    stored(client)
    stored(client, summary="Carol has a ticket about her preferences", user_id="carol")
    assert snippets(client, user_id="alice") == [SUMMARY["summary"]]
    assert snippets(client, user_id="alice", query="how does she pay?") == [SUMMARY["summary"]]
    assert snippets(client, user_id="alice", connectors=["jira"]) == []
    assert snippets(client, user_id="nobody") == []


def test_a_query_that_is_too_long_is_refused_before_it_is_read(client: TestClient, services: Services) -> None:
    for query, told in (("when " * 801, "4000 characters"), (" ", "empty"), ("a\x00b", "null byte")):
        assert told in assert_error(client.post(CONTEXT, json={"user_id": "alice", "query": query}), 400)["detail"]
    caller = caller_of(services, services.installation.tenants.create("other").id)
    with pytest.raises(InvalidInput, match="4000 characters"):
        services.memories.asked_time(caller.scope, "when " * 801, clock.today())


def test_a_bound_key_needs_no_user_and_can_name_no_other(client: TestClient, make_client: MakeClient) -> None:
    stored(client, user_id="bob", summary="Bob prefers tea")
    bound = make_client(role="agent", users=frozenset({"alice"}))
    body = {key: value for key, value in SUMMARY.items() if key != "user_id"}
    assert bound.post(STORE, json=body).json()["status"] == "ok"
    assert snippets(bound) == snippets(bound, user_id="alice") == [SUMMARY["summary"]]
    for other in ("bob", "nobody"):
        assert_error(bound.post(STORE, json=SUMMARY | {"user_id": other}), 403, "forbidden")
        assert_error(bound.post(CONTEXT, json={"user_id": other}), 403, "forbidden")
    assert snippets(client, user_id="bob") == ["Bob prefers tea"]


def test_a_key_that_is_not_bound_names_the_user(client: TestClient, make_client: MakeClient) -> None:
    for one in (client, make_client(role="agent", users=frozenset({"alice", "bob"}))):
        assert assert_error(one.post(CONTEXT, json={}), 400)["detail"].startswith("user_id: ")
        body = {key: value for key, value in SUMMARY.items() if key != "user_id"}
        assert assert_error(one.post(STORE, json=body), 400)["detail"].startswith("user_id: ")


def test_a_key_of_a_connector_stores_for_that_one(
    make_client: MakeClient, services: Services, tenant: TenantId
) -> None:
    grant = Grant(ROLES["agent"], connector="slack")
    bound = make_client(key=services.installation.keys.mint_for_installation(tenant, grant).secret)
    memory_id = stored(bound, connector=None)
    assert bound.get(f"/v1/memories/{memory_id}/").json()["metadata"]["connector"] == "slack"
    assert_error(bound.post(STORE, json=SUMMARY | {"connector": "jira"}), 403, "forbidden")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"summary": ""}, "must not be empty"),
        ({"summary": None}, "body.summary"),
        ({"channel": None}, "body.channel"),
        ({"channel": "c" * 256}, "metadata.channel: must be a string"),
        ({"connector": None}, "connector: say what"),
        ({"connector": "c" * 256}, "metadata.connector: must be a string"),
        ({"labels": "escalation"}, "body.labels"),
        ({"labels": ["ok", ""]}, "metadata.labels[1]: "),
        ({"labels": [f"label {number}" for number in range(50)]}, "metadata.labels: "),
        ({"user_id": " "}, "user_id: must not be empty"),
    ],
)
def test_what_is_wrong_is_told_by_its_field(client: TestClient, change: dict[str, Any], told: str) -> None:
    assert told in assert_error(client.post(STORE, json=SUMMARY | change), 400)["detail"]


def test_the_trail_tells_of_both(client: TestClient, services: Services, tenant: TenantId) -> None:
    memory_id = stored(client)
    snippets(client, user_id="alice")
    with services.installation.database.transaction(Scope.of(service_principal(tenant))) as connection:
        rows = connection.execute(text("SELECT event, face, result_ids FROM audit ORDER BY seq")).all()
    assert [(row.event, row.face) for row in rows[-2:]] == [("memory:added", "rest"), ("memory:searched", "rest")]
    assert [[str(one) for one in row.result_ids] for row in rows[-2:]] == [[memory_id]] * 2


def test_connector_fields_are_checked_on_every_write(client: TestClient) -> None:
    body = {"messages": [{"role": "user", "content": "tea"}], "user_id": "alice", "infer": False}
    told = assert_error(client.post("/v3/memories/add/", json=body | {"metadata": {"connector": 5}}), 400)["detail"]
    assert told.startswith("metadata.connector: must be a string")
    assert_error(client.post("/v1/memories/", json=body | {"metadata": {"labels": "x"}}), 400, "invalid_input")
    memory_id = stored(client)
    changed = client.put(f"/v1/memories/{memory_id}/", json={"metadata": {"channel": ["x"]}})
    assert assert_error(changed, 400)["detail"].startswith("metadata.channel: ")
