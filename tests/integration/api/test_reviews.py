"""Reviews over HTTP: the shapes, the report on many, and what a bad body gets."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient

from service.scope import TenantId
from tests.integration.api.conftest import MakeClient, assert_error

pytestmark = pytest.mark.integration


@pytest.fixture
def reviewed(client: TestClient, tenant: TenantId) -> TestClient:
    """A client of a tenant that reviews."""
    path = f"/api/v1/orgs/organizations/{tenant}/projects/{tenant}/"
    assert client.patch(path, json={"review_required": True}).status_code == 200
    assert client.get(path).json()["review_required"] is True
    assert_error(client.patch(path, json={"review_required": None}), 400)
    return client


def add(client: TestClient, text: str, user: str = "alice") -> dict[str, Any]:
    """Add something that waits, and return its result."""
    body = {"messages": [{"role": "user", "content": text}], "user_id": user}
    answer = client.post("/v3/memories/add/", json=body).json()
    assert answer["message"].startswith("Waiting for a reviewer")
    result: dict[str, Any] = answer["results"][0]
    assert (result["event"], result["memory"], result["data"]) == ("QUARANTINED", None, {"memory": None})
    return result


def test_one_is_listed_read_found_and_approved(reviewed: TestClient) -> None:
    waiting = add(reviewed, "likes tea")["id"]
    listed = reviewed.get("/v1/reviews/?user_id=alice").json()
    assert (listed["count"], listed["next"]) == (1, None)
    (one,) = listed["results"]
    assert (one["id"], one["memory"], one["user_id"]) == (waiting, "likes tea", "alice")
    assert one["quarantined_at"]
    assert one["provenance"]["event_id"]
    assert reviewed.get(f"/v1/reviews/{waiting}/").json() == one
    found = reviewed.post("/v1/reviews/search/", json={"query": "what does she drink?"}).json()["results"]
    assert [(hit["id"], -1 <= hit["score"] <= 1) for hit in found] == [(waiting, True)]
    assert reviewed.get(f"/v1/memories/{waiting}/").status_code == 404
    decided = reviewed.post(f"/v1/reviews/{waiting}/approve/").json()
    assert decided == {"id": waiting, "status": "approved", "memory_id": waiting}
    assert reviewed.get(f"/v1/memories/{waiting}/").json()["memory"] == "likes tea"
    assert_error(reviewed.post(f"/v1/reviews/{waiting}/approve/"), 404, "not_found")
    assert_error(reviewed.post(f"/v1/reviews/{waiting}/reject/"), 404, "not_found")
    assert_error(reviewed.get(f"/v1/reviews/{waiting}/"), 404, "not_found")


def test_many_get_a_report_also_what_is_no_id(reviewed: TestClient) -> None:
    first, second, third = (add(reviewed, text)["id"] for text in ("one", "two", "three"))
    missing = str(uuid4())
    answer = reviewed.post("/v1/reviews/approve/", json={"ids": [first, missing, "no-id", first]}).json()
    assert answer["message"] == "1 of 3 approved"
    assert [(one["id"], one["status"]) for one in answer["results"]] == [
        (first, "approved"),
        (missing, "not_found"),
        (None, "not_found"),
    ]
    answer = reviewed.post("/v1/reviews/reject/", json={"ids": [second, third]}).json()
    assert [one["status"] for one in answer["results"]] == ["rejected", "rejected"]
    assert reviewed.get("/v1/reviews/").json()["count"] == 0


def test_nothing_but_what_is_no_id_gets_a_report_too(reviewed: TestClient) -> None:
    for verb in ("approve", "reject"):
        answer = reviewed.post(f"/v1/reviews/{verb}/", json={"ids": ["no-id", "5", "no-id"]})
        assert answer.status_code == 200, answer.text
        assert answer.json()["results"] == [{"id": None, "status": "not_found", "memory_id": None}] * 2
        (row,) = reviewed.get("/v1/audit/", params={"request_id": answer.headers["x-request-id"]}).json()["results"]
        assert (row["outcome"], row["target_ids"]) == ("not_found", [])


def test_bad_bodies_and_permissions(reviewed: TestClient, make_client: MakeClient) -> None:
    waiting = add(reviewed, "likes tea")["id"]
    for body in ({}, {"ids": []}, {"ids": "x"}, {"ids": [1]}, {"ids": [waiting], "more": 1}):
        assert_error(reviewed.post("/v1/reviews/approve/", json=body), 400, "invalid_input")
    assert_error(reviewed.post("/v1/reviews/approve/", json={"ids": [str(uuid4()) for _ in range(1001)]}), 413)
    for body in ({}, {"query": ""}, {"query": "x", "top_k": 0}, {"query": "x", "filters": {"nope": 1}}):
        assert_error(reviewed.post("/v1/reviews/search/", json=body), 400, "invalid_input")
    agent = make_client(role="agent")
    calls = [("GET", "/v1/reviews/", None), ("GET", f"/v1/reviews/{waiting}/", None)]
    calls += [("POST", "/v1/reviews/search/", {"query": "x"}), ("POST", f"/v1/reviews/{waiting}/approve/", None)]
    calls += [("POST", f"/v1/reviews/{verb}/", {"ids": [waiting]}) for verb in ("approve", "reject")]  # type: ignore[list-item]
    for method, path, body in calls:
        assert "memory:review" in assert_error(agent.request(method, path, json=body), 403, "forbidden")["detail"]
    assert reviewed.get("/v1/reviews/").json()["count"] == 1


def test_profiles_are_not_enabled(client: TestClient) -> None:
    calls = [("GET", "/v2/profiles/settings/"), ("POST", "/v2/profiles/settings/"), ("POST", "/v2/profiles/jobs/")]
    calls += [("GET", "/v2/profiles/jobs/x/"), ("GET", "/v2/entities/user/alice/profile/")]
    for method, path in calls:
        assert client.request(method, path).json()["status"] == "not_enabled"
