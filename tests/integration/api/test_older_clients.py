"""The routes of older clients (0.1.x, 1.0.x): ids at the top level, bare lists, adds that wait."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.main import create_app
from service.wiring import Services
from tests.conftest import MakeServices, principal_of
from tests.integration.api.conftest import assert_error

pytestmark = pytest.mark.integration

#: What each of these clients adds to the body of a call by itself.
SENT = {"org_id": "o", "project_id": "p", "output_format": "v1.1", "version": "v2", "async_mode": True}


def add(client: TestClient, text: str, **fields: Any) -> Any:
    """Add as the client 1.0.11 does, and return the answer."""
    body = {"messages": [{"role": "user", "content": text}], "infer": False, **SENT, **fields}
    answer = client.post("/v1/memories/", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_an_add_answers_results_or_a_list(client: TestClient) -> None:
    answer = add(client, "likes tea", user_id="alice")
    assert answer["results"][0]["memory"] == "likes tea"
    assert answer["results"][0]["event"] == "ADD"
    assert add(client, "likes milk", user_id="alice", output_format="v1.0")[0]["memory"] == "likes milk"


@pytest.mark.parametrize("path", ["/v1/memories/search/", "/v2/memories/search/"])
def test_a_search_answers_a_list(client: TestClient, path: str) -> None:
    add(client, "likes tea", user_id="alice")
    add(client, "likes tea too", user_id="bob")
    body = {"query": "tea", "org_id": "o", "project_id": "p"}
    for narrowed in (
        {"user_id": "alice"},
        {"filters": {"user_id": "alice"}},
        {"filters": {"AND": [{"user_id": "alice"}]}, "limit": 5},
    ):
        hits = client.post(path, json=body | narrowed).json()
        assert [hit["memory"] for hit in hits] == ["likes tea"]
        assert hits[0]["score"] > 0
    # Both are meant when both are given.
    assert client.post(path, json=body | {"user_id": "alice", "filters": {"user_id": "bob"}}).json() == []
    assert client.post(path, json=body | {"output_format": "v1.1"}).json()["results"]


def test_a_list_answers_a_list_or_a_page(client: TestClient) -> None:
    for number in range(3):
        add(client, f"memory {number}", user_id="alice")
    add(client, "another's", user_id="bob")
    assert len(client.get("/v1/memories/?user_id=alice&org_id=o&project_id=p").json()) == 3
    assert len(client.get("/v1/memories/?user_id=alice&top_k=2").json()) == 2
    assert len(client.get("/v1/memories/").json()) == 4
    assert len(client.get("/v1/memories/?keywords=ANOTHER").json()) == 1
    page = client.get("/v1/memories/?user_id=alice&page=2&page_size=2").json()
    assert (page["count"], len(page["results"]), page["next"]) == (3, 1, None)
    assert "user_id=alice" in page["previous"]
    assert len(client.post("/v2/memories/", json={"user_id": "alice"}).json()) == 3
    assert len(client.post("/v2/memories/", json={"filters": {"user_id": "bob"}}).json()) == 1
    page = client.post("/v2/memories/?page=1&page_size=2", json={"filters": {"AND": [{"user_id": "alice"}]}}).json()
    assert (page["count"], len(page["results"])) == (3, 2)


def test_a_list_by_query_is_narrowed_by_all_that_it_names(client: TestClient) -> None:
    add(client, "likes tea", user_id="alice", metadata={"kind": "food", "n": 1}, categories=["drink"])
    add(client, "likes cake", user_id="alice", metadata={"kind": "food"}, categories=["sweet"])
    add(client, "plays chess", user_id="bob", metadata={"kind": "hobby"}, categories=["game"])

    def found(**query: Any) -> list[str]:
        answer = client.get("/v1/memories/", params=query)
        assert answer.status_code == 200, answer.text
        return sorted(one["memory"] for one in answer.json())

    assert found(filters=json.dumps({"AND": [{"user_id": "alice"}]})) == ["likes cake", "likes tea"]
    assert found(filters=json.dumps({"user_id": "bob"}), user_id="alice") == []
    assert found(metadata=json.dumps({"kind": "food"})) == ["likes cake", "likes tea"]
    assert found(metadata=json.dumps({"kind": "food", "n": 1}), user_id="alice") == ["likes tea"]
    assert found(categories=["drink", "game"]) == ["likes tea", "plays chess"]
    assert found(categories="sweet") == ["likes cake"]
    listed = client.get("/v1/memories/", params={"user_id": "bob", "fields": ["memory", "user_id"]}).json()
    assert [set(one) for one in listed] == [{"id", "memory", "user_id"}]
    assert client.get("/v1/memories/", params={"latest_only": True}).status_code == 200


BAD_QUERIES: Any = [
    # What the client 0.1 makes of a dictionary.
    ({"filters": "{'user_id': 'alice'}"}, "filters: is not valid JSON"),
    ({"metadata": "{'kind': 'food'}"}, "metadata: is not valid JSON"),
    ({"metadata": "7"}, "metadata: must be a JSON object"),
    ({"filters": "[1]"}, "filters: must be a JSON object"),
    ({"filters": ""}, "filters: must be a JSON object"),
    ({"filters": '{"user_id": "a", "user_id": "b"}'}, "filters: a key stands twice"),
    ({"filters": '{"owner": "alice"}'}, "filters: unknown key"),
    ({"metadata": '{"a": NaN}'}, "metadata: is not valid JSON"),
    ({"created_at": "2026-01-01"}, "query.created_at: there is no such parameter here"),
    ({"identity": "{}", "user_id": "alice"}, "query.identity: there is no such parameter here"),
    ({"filters": ["{}", "{}"]}, "more than once"),
]


def test_a_list_by_query_that_cannot_be_understood(client: TestClient, subtests: pytest.Subtests) -> None:
    for query, told in BAD_QUERIES:
        with subtests.test(str(query)):
            assert told in assert_error(client.get("/v1/memories/", params=query), 400, "invalid_input")["detail"]


@pytest.fixture
def unworked(make_services: MakeServices) -> Iterator[tuple[Services, TestClient]]:
    """Services whose LLM nobody asks, since no worker runs, and a client that waits for half a second."""
    services = make_services(
        llm={"provider": "openai", "model": "none", "api_key": "none", "base_url": "http://127.0.0.1:9"},
        server={"event_wait": 0.5},
    )
    tenant = services.installation.tenants.create("waiting").id
    _, secret = principal_of(services, tenant)
    with TestClient(create_app(services), headers={"Authorization": f"Token {secret}"}) as client:
        yield services, client


def test_an_add_waits_and_then_says_that_it_is_pending(unworked: tuple[Services, TestClient]) -> None:
    _, client = unworked
    answer = add(client, "likes tea", user_id="alice", infer=True)
    assert (answer["status"], answer["results"]) == ("PENDING", [])
    assert client.get(f"/v1/event/{answer['event_id']}/").json()["status"] == "PENDING"


def test_an_add_that_was_cancelled_meanwhile_is_no_success(unworked: tuple[Services, TestClient]) -> None:
    _, client = unworked
    event_id = add(client, "likes tea", user_id="alice", infer=True)["event_id"]
    assert client.delete("/v1/memories/?user_id=alice").status_code == 200
    event = client.get(f"/v1/event/{event_id}/").json()
    assert (event["status"], event["code"]) == ("CANCELLED", "deleted")
    assert event["error"]
    body = {"messages": [{"role": "user", "content": "likes tea"}], "user_id": "alice"}
    headers = {"Idempotency-Key": "k"}
    assert client.post("/v1/memories/", json=body, headers=headers).json()["status"] == "PENDING"
    client.delete("/v1/memories/?user_id=alice")
    assert_error(client.post("/v1/memories/", json=body, headers=headers), 409, "conflict")
