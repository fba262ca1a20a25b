"""Holding a value against the trail: it answers yes and no, never more, not too often, and not after an erasure."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient

from service.main import create_app
from service.scope import Permission
from service.wiring import Services
from tests.conftest import MakeServices, principal_of
from tests.integration.audit_reading.conftest import MakeClient, Rows, add, refused, search

pytestmark = pytest.mark.integration


def match(client: TestClient, value: str, **where: Any) -> dict[str, Any]:
    """Hold a value against the trail."""
    answer = client.post("/v1/audit/match/", json={"value": value, **where})
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_a_text_is_found_by_row_memory_and_user(client: TestClient, rows: Rows) -> None:
    tea, rain = add(client, "I love tea", "I love rain")
    row = str(rows("memory:added")[0]["id"])
    for where in ({"audit_id": row}, {"memory_id": rain}, {"user_id": "alice"}):
        (found,) = match(client, "I love rain", **where)["matches"]
        assert (found["audit_id"], found["event"], found["kind"]) == (row, "memory:added", "text")
        assert found["memory_id"] == rain
        assert match(client, "I love snow", **where) == {"matches": [], "checked": 1, "unmatchable": 0}
    # The text of another memory of the same row is not a text of this one.
    assert match(client, "I love rain", memory_id=tea)["matches"] == []
    (surrogate,) = rows("memory:added")[0]["subject_ids"]
    assert len(match(client, "I love rain", subject_id=str(surrogate))["matches"]) == 1


def test_each_version_of_a_text_is_found(client: TestClient) -> None:
    (memory_id,) = add(client, "I love tea")
    client.put(f"/v1/memories/{memory_id}/", json={"text": "I love coffee"})
    assert [one["event"] for one in match(client, "I love tea", memory_id=memory_id)["matches"]] == ["memory:added"]
    assert [one["event"] for one in match(client, "I love coffee", user_id="alice")["matches"]] == ["memory:updated"]


def test_a_query_is_found_and_is_not_taken_for_a_text(client: TestClient) -> None:
    (memory_id,) = add(client, "I love tea")
    search(client, "what does she drink")
    for where in ({"user_id": "alice"}, {"memory_id": memory_id}):
        (found,) = match(client, "what does she drink", **where)["matches"]
        assert (found["kind"], found["memory_id"], found["event"]) == ("query", None, "memory:searched")
    assert match(client, "What does she drink", user_id="alice")["matches"] == []
    search(client, "I love tea")
    assert {one["kind"] for one in match(client, "I love tea", user_id="alice")["matches"]} == {"query", "text"}


def test_a_query_about_nobody_is_found_by_its_row(client: TestClient, rows: Rows) -> None:
    search(client, "weather", user=None)
    row = rows("memory:searched")[0]
    assert row["subject_ids"] == []
    assert len(match(client, "weather", audit_id=str(row["id"]))["matches"]) == 1


def test_the_same_value_has_another_hmac_for_each_person_and_tenant(
    services: Services, make_client: MakeClient, rows: Rows
) -> None:
    client = make_client()
    other = make_client(tenant_id=services.installation.tenants.create("globex").id)
    for one in (client, other):
        add(one, "I love tea")
        add(one, "I love tea", user="bob")
        search(one, "tea", user=None)
    macs = [row["value_mac"] or row["query_mac"] for row in rows() if row["value_mac"] or row["query_mac"]]
    assert len(macs) == len(set(macs)) == 6


def test_after_an_erasure_nothing_can_be_matched_any_more(client: TestClient, rows: Rows) -> None:
    (memory_id,) = add(client, "I love tea")
    search(client, "her tea")
    (surrogate,) = rows("memory:added")[0]["subject_ids"]
    assert len(match(client, "I love tea", memory_id=memory_id)["matches"]) == 1
    client.delete("/v2/entities/user/alice/")
    for value in ("I love tea", "her tea"):
        for where in ({"memory_id": memory_id}, {"subject_id": str(surrogate)}):
            assert match(client, value, **where) == {"matches": [], "checked": 2, "unmatchable": 2}
    refused(client.post("/v1/audit/match/", json={"value": "x", "user_id": "alice"}), 404, "not_found")


def test_another_tenants_rows_are_not_there(services: Services, make_client: MakeClient, rows: Rows) -> None:
    (memory_id,) = add(make_client(), "I love tea")
    row = str(rows("memory:added")[0]["id"])
    other = make_client(tenant_id=services.installation.tenants.create("globex").id)
    refused(other.post("/v1/audit/match/", json={"value": "I love tea", "audit_id": row}), 404, "not_found")
    assert match(other, "I love tea", memory_id=memory_id) == {"matches": [], "checked": 0, "unmatchable": 0}


def test_matching_is_a_right_of_its_own_and_is_in_the_trail(make_client: MakeClient, rows: Rows) -> None:
    (memory_id,) = add(make_client(), "I love tea")
    body = {"value": "I love tea", "memory_id": memory_id}
    reader = make_client(permissions={Permission.AUDIT_READ, Permission.MEMORY_READ})
    refused(reader.post("/v1/audit/match/", json=body), 403, "forbidden")
    bound = make_client("admin", users=frozenset({"alice"}))
    refused(bound.post("/v1/audit/match/", json=body), 403, "forbidden")
    matcher = make_client(permissions={Permission.AUDIT_MATCH})
    assert matcher.post("/v1/audit/match/", json=body).status_code == 200
    (row,) = rows("audit:matched")
    assert row["detail"] == {"by": "memory", "checked": 1, "matched": 1, "unmatchable": 0}
    assert [str(one) for one in row["target_ids"]] == [memory_id]
    assert [str(one) for one in row["result_ids"]] == [str(rows("memory:added")[0]["id"])]


def test_a_key_that_asks_too_often_is_stopped(make_services: MakeServices, rows: Rows) -> None:
    services = make_services(audit={"matches_per_minute": 3})
    tenant = services.installation.tenants.create("acme").id
    client = TestClient(create_app(services))
    keys = [principal_of(services, tenant)[1] for _ in range(2)]
    client.headers["Authorization"] = f"Token {keys[0]}"
    body = {"value": "x", "memory_id": str(uuid4())}
    assert [client.post("/v1/audit/match/", json=body).status_code for _ in range(3)] == [200] * 3
    answer = client.post("/v1/audit/match/", json=body)
    refused(answer, 429, "rate_limited")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert rows("access:denied")[-1]["detail"] == {"action": "match_audit", "reason": "rate"}
    client.headers["Authorization"] = f"Token {keys[1]}"
    assert client.post("/v1/audit/match/", json=body).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        {"value": "x"},
        {"value": "", "user_id": "a"},
        {"value": "x", "user_id": "a", "memory_id": str(uuid4())},
        {"value": "x", "user_id": "a", "agent_id": "b"},
        {"value": "x", "memory_id": "nonsense"},
        {"value": "x", "user_id": "*"},
        {"value": "x\x00", "user_id": "a"},
        {"value": "x", "user_id": "a", "more": 1},
        {"value": 1, "user_id": "a"},
    ],
)
def test_what_cannot_be_understood_is_refused(client: TestClient, body: dict[str, Any]) -> None:
    refused(client.post("/v1/audit/match/", json=body), 400, "invalid_input")
