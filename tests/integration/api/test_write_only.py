"""A key that may write and not read learns nothing by writing, and is not refused what it did."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.auth.keys import Grant
from service.main import create_app
from service.scope import Permission, TenantId
from service.wiring import Services
from tests.conftest import MakeServices
from tests.integration.api.conftest import MakeClient, assert_error
from tests.llm.scripted import ScriptedLLM

pytestmark = pytest.mark.integration

WRITES = frozenset({Permission.MEMORY_WRITE})


def add(text: str, user: str = "alice", **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "user_id": user, "infer": False, **more}


def key(services: Services, tenant: TenantId) -> str:
    return services.installation.keys.mint_for_installation(tenant, Grant(WRITES)).secret


@pytest.fixture
def writer(make_client: MakeClient, services: Services, tenant: TenantId) -> TestClient:
    return make_client(key=key(services, tenant))


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"expiration_date": None}, {"memory": "", "metadata": {}}),
        ({"expiration_date": "2100-01-01"}, {"memory": "", "expiration_date": "2100-01-01"}),
        ({"text": "bob's PIN changed"}, {"memory": "bob's PIN changed", "metadata": {}}),
        ({"metadata": {"colour": "red"}}, {"memory": "", "metadata": {"colour": "red"}}),
    ],
)
def test_an_update_shows_what_it_said_and_no_more(
    client: TestClient, writer: TestClient, change: dict[str, Any], shown: dict[str, Any]
) -> None:
    given = add("bob's PIN is 1234", "bob", metadata={"ward": "7"})
    id_ = client.post("/v3/memories/add/", json=given).json()["results"][0]["id"]
    assert_error(writer.get(f"/v1/memories/{id_}/"), 403)
    answer = writer.put(f"/v1/memories/{id_}/", json=change)
    assert answer.status_code == 200
    assert answer.json().items() >= shown.items()
    for hidden in ("1234", "ward", "bob_id"):
        assert hidden not in answer.text
    assert answer.json()["user_id"] is None
    # Whoever may read is shown all of it.
    assert client.put(f"/v1/memories/{id_}/", json=change).json()["user_id"] == "bob"


def test_a_repeated_add_does_not_show_what_stands_there_by_now(client: TestClient, writer: TestClient) -> None:
    headers = {"Idempotency-Key": "once"}
    first = writer.post("/v3/memories/add/", json=add("alpha"), headers=headers).json()
    client.put(f"/v1/memories/{first['results'][0]['id']}/", json={"text": "what somebody else wrote"})
    again = writer.post("/v3/memories/add/", json=add("alpha"), headers=headers)
    assert again.status_code == 200
    assert again.json()["event_id"] == first["event_id"]
    assert "somebody" not in again.text


@pytest.mark.parametrize("path", ["/v1/memories/", "/memories"])
def test_the_older_paths_tell_it_that_an_add_was_taken(make_services: MakeServices, path: str) -> None:
    with ScriptedLLM() as llm:
        settings = {"provider": "openai", "model": "scripted", "api_key": "none", "base_url": llm.url, "attempts": 1}
        services = make_services(worker=False, llm=settings, server={"event_wait": 30.0})
        tenant = services.installation.tenants.create("acme").id
        with TestClient(create_app(services)) as client:
            client.headers["Authorization"] = f"Token {key(services, tenant)}"
            assert client.post(path, json=add("likes tea", infer=True)).status_code == 200


def test_a_key_that_is_bound_changes_no_settings_of_everybody(
    client: TestClient, make_client: MakeClient, tenant: TenantId
) -> None:
    path = f"/api/v1/orgs/organizations/{tenant}/projects/{tenant}/"
    assert client.patch(path, json={"review_required": True}).status_code == 200
    bound = make_client(users=frozenset({"alice"}))
    assert_error(bound.patch(path, json={"review_required": False}), 403)
    assert client.get(path).json()["review_required"] is True
