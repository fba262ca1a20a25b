"""Batches: up to 1,000 memories changed or deleted in one call, each wholly or not at all, with a report on each."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import psycopg
import pytest
from fastapi.testclient import TestClient

from service.scope import TenantId
from service.wiring import Services
from tests.conftest import Postgres, principal_of
from tests.integration.api.conftest import MakeClient, assert_error

pytestmark = pytest.mark.integration


def add(client: TestClient, *texts: str, user_id: str = "alice", **fields: Any) -> list[str]:
    """Add memories and return their ids."""
    body = {"messages": [{"role": "user", "content": text} for text in texts], "user_id": user_id, "infer": False}
    answer = client.post("/v3/memories/add/", json=body | fields)
    assert answer.status_code == 200, answer.text
    return [result["id"] for result in answer.json()["results"]]


def update(client: TestClient, *items: dict[str, Any]) -> Any:
    """Send a batch of updates and return the answer's body."""
    answer = client.put("/v1/batch/", json={"memories": list(items)})
    assert answer.status_code == 200, answer.text
    return answer.json()


def delete(client: TestClient, *ids: str) -> Any:
    """Send a batch of deletions and return the answer's body."""
    answer = client.request("DELETE", "/v1/batch/", json={"memories": [{"memory_id": one} for one in ids]})
    assert answer.status_code == 200, answer.text
    return answer.json()


def texts(client: TestClient) -> set[str]:
    """The texts of all memories."""
    return {memory["memory"] for memory in client.post("/v3/memories/", json={}).json()["results"]}


def test_a_batch_changes_each_memory_as_a_single_update_would(client: TestClient) -> None:
    tea, milk, wine = add(client, "likes tea", "likes milk", "likes wine", metadata={"a": 1})
    answer = update(
        client,
        {"memory_id": tea, "text": "likes coffee"},
        {"memory_id": milk, "metadata": {"b": 2}},
        {"memory_id": wine, "text": "likes beer", "metadata": {}, "expiration_date": "2099-01-31"},
    )
    assert answer["message"] == "Successfully updated 3 memories"
    assert answer["count"] == 3
    assert [(one["memory_id"], one["status"]) for one in answer["results"]] == [
        (tea, "UPDATED"),
        (milk, "UPDATED"),
        (wine, "UPDATED"),
    ]
    now = {memory_id: client.get(f"/v1/memories/{memory_id}/").json() for memory_id in (tea, milk, wine)}
    assert (now[tea]["memory"], now[tea]["metadata"]) == ("likes coffee", {"a": 1})
    assert (now[milk]["memory"], now[milk]["metadata"]) == ("likes milk", {"b": 2})
    assert (now[wine]["memory"], now[wine]["expiration_date"]) == ("likes beer", "2099-01-31")
    steps = client.get(f"/v1/memories/{tea}/history/").json()
    assert [(step["event"], step["old_memory"], step["new_memory"]) for step in steps][1] == (
        "UPDATE",
        "likes tea",
        "likes coffee",
    )
    # Found by its new words and no longer by its old ones: the index follows.
    found = client.post("/v3/memories/search/", json={"query": "coffee", "filters": {"user_id": "alice"}, "top_k": 1})
    assert found.json()["results"][0]["id"] == tea


def test_a_batch_deletes_and_leaves_no_text(client: TestClient, database: Postgres) -> None:
    ids = add(client, "canary one", "canary two", "canary three")
    answer = delete(client, *ids[:2])
    assert answer["message"] == "Successfully deleted 2 memories"
    assert texts(client) == {"canary three"}
    history = client.get(f"/v1/memories/{ids[0]}/history/")
    assert history.json()[-1]["event"] == "DELETE"
    assert "canary" not in history.text
    found = client.post("/v3/memories/search/", json={"query": "canary", "filters": {"user_id": "alice"}}).json()
    assert [hit["id"] for hit in found["results"]] == [ids[2]]
    with psycopg.connect(database.admin) as connection:
        kept = connection.execute("SELECT count(*) FROM messages").fetchone()
    assert kept == (0,)


def test_what_cannot_be_done_is_told_and_stops_nothing_else(client: TestClient) -> None:
    [tea] = add(client, "likes tea")
    other = str(uuid4())
    answer = update(
        client,
        {"memory_id": other, "text": "nobody's"},
        {"memory_id": "not an id", "text": "nobody's"},
        {"memory_id": str(uuid4())},
        {"memory_id": str(uuid4()), "text": "  "},
        {"memory_id": str(uuid4()), "text": "x" * 20_001},
        {"memory_id": str(uuid4()), "metadata": {"user_id": "bob"}},
        {"memory_id": str(uuid4()), "expiration_date": "yesterday"},
        {"memory_id": tea, "text": "likes coffee"},
    )
    assert answer["count"] == 1
    assert answer["message"].startswith("1 of 8 memories updated")
    assert [(one["status"], one["code"]) for one in answer["results"]] == [
        ("FAILED", "not_found"),
        ("FAILED", "not_found"),
        ("FAILED", "invalid_input"),
        ("FAILED", "invalid_input"),
        ("FAILED", "too_large"),
        ("FAILED", "reserved_metadata_key"),
        ("FAILED", "invalid_input"),
        ("UPDATED", None),
    ]
    assert all(one["detail"] for one in answer["results"][:-1])
    assert texts(client) == {"likes coffee"}
    gone = delete(client, other, "not an id", tea)
    assert [(one["status"], one["code"]) for one in gone["results"]] == [
        ("FAILED", "not_found"),
        ("FAILED", "not_found"),
        ("DELETED", None),
    ]
    assert texts(client) == set()


def test_anothers_memories_are_reported_like_ones_that_do_not_exist(
    client: TestClient, make_client: MakeClient, services: Services
) -> None:
    [alices] = add(client, "likes tea")
    [bobs] = add(client, "likes wine", user_id="bob")
    rival = services.installation.tenants.create("rival").id
    _, secret = principal_of(services, rival)
    for outsider, reached in (
        (make_client(key=secret), set[str]()),
        (make_client(role="agent", users=frozenset({"bob"})), {bobs}),
    ):
        missing = str(uuid4())
        told = update(outsider, *({"memory_id": one, "text": "mine now"} for one in (alices, bobs, missing)))
        by_id = {one["memory_id"]: (one["status"], one["code"], one["detail"]) for one in told["results"]}
        assert by_id[alices] == by_id[missing]
        assert (by_id[bobs][0] == "UPDATED") == (bobs in reached)
        assert delete(outsider, alices, missing)["count"] == 0
    assert texts(client) == {"likes tea", "mine now"}


def test_the_bounds_of_a_batch(client: TestClient, make_client: MakeClient) -> None:
    [tea] = add(client, "likes tea")
    for method in ("PUT", "DELETE"):

        def send(items: Any, method: str = method) -> Any:
            return client.request(method, "/v1/batch/", json={"memories": items})

        item = {"text": "likes coffee"} if method == "PUT" else {}
        assert_error(send([]), 400, "invalid_input")
        assert_error(send([{"memory_id": tea, **item}] * 2), 400, "invalid_input")
        assert_error(send([{"memory_id": tea.upper(), **item}, {"memory_id": tea, **item}]), 400, "invalid_input")
        assert_error(send([{"memory_id": str(uuid4()), **item} for _ in range(1001)]), 413, "too_large")
        assert_error(send([{**item}]), 400, "invalid_input")
        assert_error(send(tea), 400, "invalid_input")
        assert_error(client.request(method, "/v1/batch/"), 400)
        reader = make_client(role="reader")
        assert_error(reader.request(method, "/v1/batch/", json={"memories": [{"memory_id": tea}]}), 403, "forbidden")
    assert texts(client) == {"likes tea"}


def test_a_thousand_at_once(client: TestClient) -> None:
    ids = [one for start in range(0, 1000, 200) for one in add(client, *(f"fact {start + n}" for n in range(200)))]
    answer = update(client, *({"memory_id": one, "metadata": {"n": number}} for number, one in enumerate(ids)))
    assert answer["count"] == 1000
    assert client.get(f"/v1/memories/{ids[777]}/").json()["metadata"] == {"n": 777}
    assert delete(client, *ids)["count"] == 1000
    assert client.post("/v3/memories/", json={}).json()["count"] == 0


def test_each_change_has_its_audit_row_and_so_has_what_was_not_there(
    client: TestClient, services: Services, tenant: TenantId, database: Postgres
) -> None:
    tea, milk = add(client, "likes tea", "likes milk")
    missing = str(uuid4())
    update(
        client,
        {"memory_id": tea, "text": "likes coffee"},
        {"memory_id": milk, "metadata": {}},
        {"memory_id": missing, "text": "x"},
    )
    delete(client, tea, milk, missing)
    rows = client.get("/v1/audit/", params={"event": "batch:updated"}).json()["results"]
    told = {tuple(row["target_ids"]): (row["outcome"], row["detail"].get("changed")) for row in rows}
    assert told == {
        (tea,): ("done", ["text"]),
        (milk,): ("done", ["metadata"]),
        (missing,): ("not_found", []),
    }
    rows = client.get("/v1/audit/", params={"event": "batch:deleted"}).json()["results"]
    assert {(frozenset(row["target_ids"]), row["outcome"]) for row in rows} == {
        (frozenset({tea, milk}), "done"),
        (frozenset({missing}), "not_found"),
    }
    # What was said can be asked for by whoever knows it.
    said = client.post("/v1/audit/match/", json={"value": "likes coffee", "memory_id": tea}).json()
    assert [one["event"] for one in said["matches"]] == ["batch:updated"]
    # Without its audit row nothing of the batch happens.
    [wine] = add(client, "likes wine")
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute("REVOKE INSERT ON audit FROM memvault_app")
        body = {"memories": [{"memory_id": wine, "text": "likes beer"}]}
        assert_error(client.put("/v1/batch/", json=body), 503)
        assert_error(client.request("DELETE", "/v1/batch/", json={"memories": [{"memory_id": wine}]}), 503)
        connection.execute("GRANT INSERT ON audit TO memvault_app")
    assert texts(client) == {"likes wine"}
