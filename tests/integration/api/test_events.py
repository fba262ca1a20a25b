"""Events tell the truth: every state with its code and reason, what was known already, narrowed and page by page."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from service import clock
from service.main import create_app
from service.memories.events import move_event
from service.records import EventStatus
from service.scope import Scope, service_principal
from service.wiring import Services
from tests.conftest import MakeServices, principal_of
from tests.integration.api.conftest import assert_error

pytestmark = pytest.mark.integration


def add(client: TestClient, text: str, *, infer: bool = False, user: str = "alice") -> dict[str, Any]:
    """Add, and return the answer."""
    body = {"messages": [{"role": "user", "content": text}], "user_id": user, "infer": infer}
    answer = client.post("/v3/memories/add/", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def ids(client: TestClient, query: str = "") -> list[str]:
    """The ids of the listed events."""
    answer = client.get(f"/v1/events/{query}")
    assert answer.status_code == 200, answer.text
    return [event["id"] for event in answer.json()["results"]]


def test_what_was_known_already_is_told_as_none(client: TestClient) -> None:
    first, again = add(client, "likes tea"), add(client, "likes tea")
    event = client.get(f"/v1/event/{again['event_id']}/").json()
    (result,) = event["results"]
    assert (result["event"], result["id"]) == ("NONE", first["results"][0]["id"])
    assert (event["status"], event["code"], event["error"]) == ("SUCCEEDED", None, None)


def test_every_state_is_shown_with_its_code_and_reason(make_services: MakeServices) -> None:
    # No worker: nothing moves by itself.
    services = make_services(llm={"provider": "openai", "model": "m", "base_url": "http://127.0.0.1:9/v1"})
    client = client_of(services)
    event_id = add(client, "likes tea", infer=True)["event_id"]
    assert client.get(f"/v1/event/{event_id}/").json()["status"] == "PENDING"
    for status, code, reason in [
        ("RUNNING", None, None),
        ("PENDING", "llm_unavailable", "the LLM did not answer"),
        ("FAILED", "llm_rejected", "the LLM answered 401"),
        ("CANCELLED", "erased", "its subject was erased meanwhile"),
        ("SUCCEEDED", None, None),
    ]:
        set_state(services, event_id, status, code, reason)
        event = client.get(f"/v1/event/{event_id}/").json()
        assert (event["status"], event["code"], event["error"]) == (status, code, reason)
        assert client.get(f"/v1/events/?status={status}").json()["count"] == 1
        assert [one["status"] for one in client.get("/v1/events/").json()["results"]] == [status]


def test_lists_are_narrowed_and_paged(make_services: MakeServices) -> None:
    services = make_services()
    client = client_of(services)
    made = [add(client, f"fact {number}")["event_id"] for number in range(3)][::-1]
    set_state(services, made[0], "FAILED", "llm_rejected", "x")
    assert ids(client, "?status=FAILED") == made[:1]
    assert ids(client, "?status=FAILED&status=SUCCEEDED") == made
    assert ids(client, "?event_type=ADD") == made
    assert ids(client, "?event_type=EXPORT") == []
    today = clock.today().isoformat()
    assert ids(client, f"?start_date={today}&end_date={today}") == made
    assert ids(client, "?end_date=2020-01-01") == []
    assert ids(client, "?end_date=9999-12-31") == made
    first = client.get("/v1/events/?page_size=2").json()
    assert (first["count"], [one["id"] for one in first["results"]], first["previous"]) == (3, made[:2], None)
    second = client.get(first["next"]).json()
    assert ([one["id"] for one in second["results"]], second["next"]) == (made[2:], None)
    for bad in ("status=DONE", "start_date=soon", "page=0", "page_size=100000"):
        assert_error(client.get(f"/v1/events/?{bad}"), 400, "invalid_input")


def client_of(services: Services) -> TestClient:
    """A client with an admin key of a new tenant."""
    _, key = principal_of(services, services.installation.tenants.create("acme").id)
    return TestClient(create_app(services), headers={"Authorization": f"Token {key}"})


def set_state(services: Services, event_id: str, status: str, code: str | None, reason: str | None) -> None:
    """Move an event as the worker does."""
    tenant = services.installation.tenants.get("acme").id
    with services.installation.database.transaction(Scope.of(service_principal(tenant))) as connection:
        move_event(connection, UUID(event_id), EventStatus(status), code=code, reason=reason)
