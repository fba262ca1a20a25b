"""Mem0's TypeScript client: each public method against a served instance, its errors and its paging."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from service.scope import TenantId
from service.wiring import Services
from tests.clients import methods
from tests.clients.conftest import Busy
from tests.clients.driving import Client, Driver, Raised, driving
from tests.clients.npm_packages import NodePackages
from tests.conftest import principal_of

pytestmark = pytest.mark.clients

TEA = [{"role": "user", "content": "I like tea with lemon"}]
ALICE = {"AND": [{"user_id": "alice"}]}


@pytest.fixture(scope="module")
def driver(node_packages: NodePackages, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """A process in which the client lives."""
    home = tmp_path_factory.mktemp("home-typescript")
    command = [node_packages.node, str(node_packages.folder / "memory_client.mjs")]
    with driving(command, home, folder=node_packages.folder) as driver:
        yield driver


@contextlib.contextmanager
def raises(kind: str, status: int, code: str) -> Iterator[None]:
    """Expect the exception that a status becomes, with our answer as its text."""
    with pytest.raises(Raised) as caught:
        yield
    raised = caught.value
    assert (raised.kind, raised.told["code"]) == (kind, f"HTTP_{status}"), raised
    assert f'"code":"{code}"' in raised.message
    assert '"request_id"' in raised.message


def test_every_method(driver: Driver, url: str, secret: str, tenant: TenantId, http: Callable[..., Any]) -> None:
    served = set(http("GET", "/openapi.json").json()["paths"])
    client = driver.connect(url, secret)
    assert client.about == {"org_id": str(tenant), "project_id": str(tenant), "user_email": None}
    client("ping")
    memories(client)
    paging_and_batches(client)
    entities(client)
    project(client, served)
    profiles(client, served)
    assert driver.methods() == set(methods.TYPESCRIPT), "a method has no state in methods.py"
    working = methods.only_served(methods.TYPESCRIPT, served)
    assert driver.called == set(working), "a method has no case here, or works other than it is told"
    assert driver.outside() == []


def memories(client: Client) -> None:
    """Add, get, search, list, update, history, delete."""
    added = client("add", TEA, {"userId": "alice", "metadata": {"some_key": "chat"}, "infer": False})
    assert added["status"] == "SUCCEEDED"
    [result] = added["results"]
    memory_id = result["id"]
    assert (result["event"], result["data"]["memory"]) == ("ADD", TEA[0]["content"])
    assert "no LLM" in client("add", [{"role": "user", "content": "I play chess"}], {"userId": "alice"})["message"]
    memory = client("get", memory_id)
    # Keys of an answer are camelCased, those of the user's own metadata are left alone.
    assert (memory["userId"], memory["metadata"], memory["categories"]) == ("alice", {"some_key": "chat"}, [])
    found = client("search", "what does she drink?", {"filters": ALICE, "topK": 1, "threshold": 0.05})["results"]
    assert [one["id"] for one in found] == [memory_id]
    assert 0 < found[0]["score"] <= 1
    assert client("getAll", {"filters": ALICE})["count"] == 2
    assert client("update", memory_id, {"text": "I like coffee now"})["memory"] == "I like coffee now"
    assert client("update", memory_id, {"expirationDate": "2099-01-31"})["expirationDate"] == "2099-01-31"
    assert client("update", memory_id, {"expirationDate": None})["expirationDate"] is None
    assert client("update", memory_id, {"timestamp": "2021-01-01T00:00:00Z"})["createdAt"].startswith("2021-01-01")
    steps = client("history", memory_id)
    assert (steps[1]["event"], steps[1]["oldMemory"], steps[1]["newMemory"]) == (
        "UPDATE",
        TEA[0]["content"],
        "I like coffee now",
    )
    assert client("delete", memory_id, {"deleteLinked": True})["message"] == "Memory deleted successfully!"
    with raises("MemoryNotFoundError", 404, "not_found"):
        client("get", memory_id)
    assert client("deleteAll", {"userId": "alice"})["message"] == "Memories deleted successfully!"
    assert client("getAll", {"filters": ALICE})["count"] == 0
    with raises("ValidationError", 400, "scope_required"):
        client("deleteAll")


def paging_and_batches(client: Client) -> None:
    """Lists page by page to the end; many memories in one call."""
    client(
        "add",
        [{"role": "user", "content": f"memory {number}"} for number in range(5)],
        {"userId": "alice", "infer": False},
    )
    seen: list[dict[str, Any]] = []
    number = 1
    while True:
        page = client("getAll", {"filters": ALICE, "page": number, "pageSize": 2})
        assert (page["count"], page["previous"] is None) == (5, number == 1)
        seen += page["results"]
        if page["next"] is None:
            break
        number += 1
    assert number == 3
    assert sorted(one["memory"] for one in seen) == [f"memory {number}" for number in range(5)]
    first, second = (one["id"] for one in seen[:2])
    answer = client("batchUpdate", [{"memoryId": first, "text": "one"}, {"memoryId": second, "text": "two"}])
    assert answer["message"] == "Successfully updated 2 memories"
    assert client("get", second)["memory"] == "two"
    answer = client("batchDelete", [first, "no-such-memory"])
    assert (answer["count"], answer["results"][1]["code"]) == (1, "not_found")


def entities(client: Client) -> None:
    """Users, agents, apps and runs."""
    client("add", TEA, {"userId": "b/ob ü", "infer": False})
    client("add", TEA, {"agentId": "helper", "infer": False})
    users = client("users", {"page": 1, "pageSize": 2})
    assert (users["count"], users["totalUsers"], len(users["results"])) == (3, 3, 2)
    assert {"type": "user", "name": "alice", "totalMemories": 4}.items() <= users["results"][0].items()
    assert client("deleteUsers", {"userId": "b/ob ü"})["message"] == "Entity deleted successfully."
    assert client("deleteUser", {"entity_id": "helper", "entity_type": "agent"})["message"]
    # It wraps what the service says into an error of its own.
    with pytest.raises(Raised, match="there is no such user"):
        client("deleteUsers", {"userId": "b/ob ü"})
    assert client("deleteUsers")["message"] == "All users, agents, apps and runs deleted."
    assert client("users")["count"] == 0


def project(client: Client, served: set[str]) -> None:
    """The project's settings, feedback, exports and webhooks."""
    [memory] = client("add", TEA, {"userId": "alice", "infer": False})["results"]
    if "/v1/feedback/" in served:
        told = client("feedback", {"memoryId": memory["id"], "feedback": "NEGATIVE", "feedbackReason": "it is not"})
        assert (told["feedback"], told["feedbackReason"]) == ("NEGATIVE", "it is not")
    if methods.PROJECT in served:
        update = {"customInstructions": "Only food", "customCategories": [{"some_food": "what is eaten"}]}
        assert client("updateProject", update)["message"]
        assert client("getProject", {"fields": list(update)}) == update
    if "/v1/exports/" in served:
        schema = {"type": "object", "properties": {"drinks": {"type": "array", "items": {"type": "string"}}}}
        made = client("createMemoryExport", {"schema": schema, "filters": {"user_id": "alice"}})
        assert isinstance(client("getMemoryExport", {"memoryExportId": made["id"]}), dict)
    if methods.WEBHOOKS in served:
        # All of the client's `WebhookEvent`.
        kinds = ["memory_add", "memory_update", "memory_delete", "memory_categorize"]
        asked = {"url": "https://hooks.example.com/memvault", "name": "cache", "eventTypes": kinds}
        webhook_id = client("createWebhook", asked)["webhookId"]
        assert [one["name"] for one in client("getWebhooks")] == ["cache"]
        assert client("updateWebhook", {"webhookId": webhook_id, "name": "shop"})["message"]
        assert [one["name"] for one in client("getWebhooks")] == ["shop"]
        assert client("deleteWebhook", {"webhookId": webhook_id})["message"]


def profiles(client: Client, served: set[str]) -> None:
    """Profiles are not enabled, and say so in the form that the client knows."""
    if "/v2/profiles/settings/" in served:
        assert client("getProfile", {"entityId": "alice"})["status"] == "not_enabled"
        assert client("generateProfile", {"entityId": "alice"})["status"] == "not_enabled"
        assert client("sampleProfiles", {"limit": 1})["status"] == "not_enabled"
        assert client("getProfileJob", "job")["status"] == "not_enabled"
        assert client("getProfileSettings")["enabled"] is False
        assert client("updateProfileSettings", {"enabled": True})["enabled"] is False


def test_errors(
    driver: Driver,
    url: str,
    secret: str,
    services: Services,
    tenant: TenantId,
    hold_user: Callable[[str], None],
    busy: Busy,
) -> None:
    client = driver.connect(url, secret)
    with raises("AuthenticationError", 401, "unauthenticated"):
        driver.connect(url, "mv_wrong")
    reader = driver.connect(url, principal_of(services, tenant, role="reader")[1])
    client("add", TEA, {"userId": "alice", "infer": False})
    with raises("ValidationError", 400, "invalid_input"):
        client("search", "tea", {"filters": {"owner": "x"}})
    with raises("ValidationError", 400, "invalid_input"):
        client("add", TEA, {"infer": False})
    with raises("AuthenticationError", 403, "forbidden"):
        reader("add", TEA, {"userId": "alice", "infer": False})
    with raises("MemoryNotFoundError", 404, "not_found"):
        client("get", "no-such-memory")
    with client.with_header("Idempotency-Key", "k"):
        client("add", TEA, {"userId": "bob", "infer": False})
        with raises("ValidationError", 409, "idempotency_key_reused"):
            client("add", [{"role": "user", "content": "something else"}], {"userId": "bob", "infer": False})
    [held] = client("add", TEA, {"userId": "carol", "infer": False})["results"]
    hold_user("carol")
    with raises("ValidationError", 409, "legal_hold"):
        client("delete", held["id"])
    for length in (20_001, 5_000_000):
        with raises("MemoryQuotaExceededError", 413, "too_large"):
            client("add", [{"role": "user", "content": "x" * length}], {"userId": "alice", "infer": False})
    limited = driver.connect(url, busy.secret)
    busy.stop()
    with raises("RateLimitError", 429, "rate_limited"):
        [limited("users") for _ in range(5)]
    services.index.close()
    with raises("NetworkError", 503, "index_unavailable"):
        client("search", "tea", {"filters": ALICE})
    assert client("getAll", {"filters": ALICE})["count"] == 1
