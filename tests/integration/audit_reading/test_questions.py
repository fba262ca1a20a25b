"""The auditor's questions, each one call: the calls that docs/audit.md shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service import clock
from tests.integration.audit_reading.conftest import MakeClient, Rows, add, audit, refused, search

pytestmark = pytest.mark.integration


def now() -> str:
    """This moment, as it stands in a query string."""
    return datetime.now(UTC).isoformat()


def known(client: TestClient, **parameters: Any) -> dict[str, Any]:
    """Ask what was known."""
    answer = client.get("/v1/audit/known/", params=parameters)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def ids(answer: dict[str, Any]) -> list[str]:
    """The memories of an answer."""
    return [memory["memory_id"] for memory in answer["memories"]]


def test_who_read_this_memory(make_client: MakeClient) -> None:
    writer, reader, stranger = make_client(), make_client("reader"), make_client("reader")
    (memory_id,) = add(writer, "I love tea")
    add(writer, "I love rain", user="bob")
    reader.get(f"/v1/memories/{memory_id}/")
    search(reader, "tea")
    reader.post("/v3/memories/", json={"filters": {"user_id": "alice"}})
    reader.get(f"/v1/memories/{memory_id}/history/")
    search(stranger, "rain", user="bob")
    found = audit(writer, memory_id=memory_id, activity="read")
    assert [row["event"] for row in found] == ["history:read", "memory:listed", "memory:searched", "memory:read"]
    assert {row["principal_id"] for row in found} == {reader.headers["X-Key"]}


def test_what_did_this_key_do(make_client: MakeClient) -> None:
    auditor, key = make_client("compliance_officer"), make_client("agent")
    (memory_id,) = add(key, "I love tea")
    search(key, "tea")
    key.delete(f"/v1/memories/{memory_id}/")
    refused(key.get("/v1/keys/"), 403, "forbidden")
    found = audit(auditor, principal_id=key.headers["X-Key"], order="oldest")
    assert [row["event"] for row in found] == ["memory:added", "memory:searched", "memory:deleted", "access:denied"]


def test_what_did_the_agent_know_and_what_was_behind_its_answer(client: TestClient) -> None:
    first = add(client, "I love tea", agent_id="helper")
    gone = add(client, "I love rain", agent_id="helper")
    add(client, "I love snow", agent_id="another")
    before = now()
    client.delete(f"/v1/memories/{gone[0]}/")
    found = search(client, "tea", **{"X-Request-ID": "answer-1"})
    later = add(client, "I love hail", agent_id="helper")
    assert ids(known(client, agent_id="helper", at=before)) == first + gone
    assert ids(known(client, agent_id="helper", at=now())) == first + later
    answer = known(client, agent_id="helper", request_id="answer-1")
    assert ids(answer) == first
    assert answer["memories"][0]["shown"] is True
    assert answer["shown"] == found
    assert set(found) > set(first)
    assert known(client, request_id="answer-1")["shown"] == found


def test_what_was_known_follows_updates_expiry_deletion_and_erasure(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    tomorrow = (clock.today() + timedelta(days=1)).isoformat()
    in_a_week = datetime.now(UTC) + timedelta(days=7)
    (short,) = add(client, "I love tea", agent_id="helper", expiration_date=tomorrow)
    (longer,) = add(client, "I love rain", agent_id="helper", expiration_date=tomorrow)
    (of_bob,) = add(client, "I love snow", user="bob", agent_id="helper")
    (kept,) = add(client, "I love hail", user="carol", agent_id="helper")
    client.put(f"/v1/memories/{longer}/", json={"expiration_date": None})
    assert ids(known(client, agent_id="helper", at=now())) == [short, longer, of_bob, kept]
    changed = known(client, agent_id="helper", at=now())["memories"][1]
    assert changed["changed_at"]
    assert changed["expires_on"] is None
    assert ids(known(client, agent_id="helper", at=in_a_week.isoformat())) == [longer, of_bob, kept]
    moment = now()
    client.delete("/v2/entities/user/bob/")
    client.delete("/v1/memories/", params={"user_id": "carol"})
    assert ids(known(client, agent_id="helper", at=now())) == [short, longer]
    assert ids(known(client, agent_id="helper", at=moment)) == [short, longer, of_bob, kept]


def test_an_erased_subject_is_asked_for_by_its_surrogate(client: TestClient, rows: Rows) -> None:
    add(client, "I love tea")
    (surrogate,) = rows("memory:added")[0]["subject_ids"]
    moment = now()
    client.delete("/v2/entities/user/alice/")
    refused(client.get("/v1/audit/known/", params={"user_id": "alice", "at": moment}), 404, "not_found")
    assert known(client, subject_id=str(surrogate), at=moment)["total"] == 1
    assert known(client, subject_id=str(surrogate), at=now())["total"] == 0
    assert [row["outcome"] for row in rows("audit:read")] == ["not_found", "done", "done"]


def test_what_was_known_needs_a_moment_and_somebody(client: TestClient) -> None:
    for parameters in ({}, {"user_id": "alice"}, {"at": now()}, {"user_id": "*", "at": now()}, {"at": "x"}):
        refused(client.get("/v1/audit/known/", params=parameters), 400, "invalid_input")
    refused(client.get("/v1/audit/known/", params={"request_id": "never"}), 404, "not_found")


def test_every_refusal_last_week(make_client: MakeClient) -> None:
    auditor, key = make_client("compliance_officer"), make_client("reader", users=frozenset({"alice"}))
    refused(key.delete("/v1/memories/?user_id=alice"), 403, "forbidden")
    body = {"query": "tea", "filters": {"user_id": "bob"}}
    refused(key.post("/v3/memories/search/", json=body), 403, "forbidden")
    since = (clock.now() - timedelta(days=7)).isoformat()
    found = audit(auditor, outcome="refused", **{"from": since}, order="oldest")
    assert [row["detail"] for row in found] == [
        {"action": "delete_all", "reason": "permission"},
        {"action": "search", "reason": "user"},
    ]
    assert audit(auditor, outcome="refused", **{"to": since}) == []
