"""Mem0's Python clients of three generations, synchronous and asynchronous: each public method, errors, paging.

Each client runs in a process of its own, in the environment that it was made for. What older ones raise is what they
raise at Mem0's own service too.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.scope import TenantId
from service.wiring import Services
from tests.clients import methods
from tests.clients.conftest import Busy
from tests.clients.driving import Client, Driver, Raised, driving
from tests.clients.python_clients import NotInstalled, find
from tests.conftest import MakeServices, principal_of
from tests.llm.scripted import ScriptedLLM

pytestmark = pytest.mark.clients

DRIVER = Path(__file__).parent / "drivers" / "python_client.py"
PINNED = "2.2.1"
TEA = [{"role": "user", "content": "I like tea with lemon"}]
ALICE = {"AND": [{"user_id": "alice"}]}
GENERATIONS = [(version, mode) for version in methods.PYTHON for mode in ("sync", "async")]


class Generation:
    """One client of one generation, with the few calls that changed their form from one to the next."""

    def __init__(self, driver: Driver, version: str, mode: str) -> None:
        self.driver = driver
        self.version = version
        self.mode = mode

    @property
    def is_first(self) -> bool:
        """Whether it is of the 0.1 line, which answers bare lists."""
        return self.version.startswith("0.")

    def kind_of(self, status: int) -> str:
        """The exception that a status becomes. Before 2.0 the asynchronous ones let the HTTP library's own through."""
        return "HTTPStatusError" if self.mode == "async" and self.version != PINNED else methods.ERRORS[status]

    def search(self, client: Client, query: str, user: str = "alice", **more: Any) -> list[dict[str, Any]]:
        """Search a user's memories in the form of this generation."""
        if self.is_first:
            found: list[dict[str, Any]] = client("search", query, user_id=user, **more)
            return found
        results: list[dict[str, Any]] = client("search", query, filters={"AND": [{"user_id": user}]}, **more)["results"]
        return results

    def listed(self, client: Client, user: str = "alice") -> list[dict[str, Any]]:
        """All memories of a user in the form of this generation."""
        if self.is_first:
            found: list[dict[str, Any]] = client("get_all", user_id=user)
            return found
        results: list[dict[str, Any]] = client("get_all", filters={"user_id": user})["results"]
        return results

    def page(self, client: Client, number: int, size: int) -> dict[str, Any]:
        """One page of Alice's memories in the form of this generation."""
        version = {"version": "v2"} if self.is_first else {}
        page: dict[str, Any] = client("get_all", filters=ALICE, page=number, page_size=size, **version)
        return page


@pytest.fixture(scope="module", params=GENERATIONS, ids=lambda one: "-".join(one))
def generation(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generation]:
    """A driver of one client."""
    version, mode = request.param
    try:
        python = sys.executable if version == PINNED else str(find(f"client-{version}").python)
    except NotInstalled as reason:
        pytest.skip(str(reason))
    home = tmp_path_factory.mktemp(f"home-{version}-{mode}")
    with driving([python, str(DRIVER), mode], home) as driver:
        yield Generation(driver, version, mode)


@pytest.fixture
def llm() -> Iterator[ScriptedLLM]:
    """A scripted LLM over HTTP, which makes one fact of each message."""
    with ScriptedLLM() as scripted:
        yield scripted


@pytest.fixture
def services(make_services: MakeServices, llm: ScriptedLLM) -> Services:
    """Services that extract and may notify a host."""
    flags = {"provider": "openai", "config": llm.config, "timeout": 5.0}
    hosts = {"allowed_hosts": ["hooks.example.com"]}
    return make_services(worker=True, llm=flags, queue={"poll_interval": 0.1}, webhooks=hosts)


@contextlib.contextmanager
def raises(generation: Generation, status: int, code: str, *, says: str = "") -> Iterator[list[Raised]]:
    """Expect the exception that a status becomes in this generation, with our words in it."""
    seen: list[Raised] = []
    with pytest.raises(Raised) as caught:
        yield seen
    raised = caught.value
    seen.append(raised)
    assert (raised.kind, raised.status) == (generation.kind_of(status), status), raised
    details = raised.told["details"]
    assert says in details["detail"]
    assert details["request_id"]
    assert details["code"] == code
    if raised.kind != "HTTPStatusError":
        assert raised.message == details["detail"]


def test_every_method(
    generation: Generation, url: str, secret: str, tenant: TenantId, http: Callable[..., Any], llm: ScriptedLLM
) -> None:
    served = set(http("GET", "/openapi.json").json()["paths"])
    client = generation.driver.connect(url, secret)
    assert client.about == {"org_id": str(tenant), "project_id": str(tenant), "user_email": None}
    memories(generation, client, http)
    paging(generation, client)
    batches(generation, client)
    entities(generation, client)
    project(generation, client, served, llm)
    exports(generation, client, served, llm)
    webhooks(client, str(tenant), served)
    with pytest.raises(Raised, match="Chat is not implemented yet"):
        client("chat")
    if generation.version == PINNED:
        profiles(client, served)
    states = methods.only_served(methods.PYTHON[generation.version], served)
    driver = generation.driver
    assert driver.methods() == set(methods.PYTHON[generation.version]), "a method has no state in methods.py"
    working = {name for name, state in states.items() if state in (methods.WORKS, methods.NOT_ENABLED)}
    assert driver.called == working, "a method has no case here, or works other than it is told"
    assert set(states) - working <= driver.refused
    assert driver.outside() == []


def memories(generation: Generation, client: Client, http: Callable[..., Any]) -> None:
    """Add, get, search, list, update, history, delete."""
    added = client("add", TEA, user_id="alice", metadata={"source": "chat"}, infer=False)
    assert added["status"] == "SUCCEEDED"
    [result] = added["results"]
    memory_id = result["id"]
    assert (result["event"], result["data"]["memory"]) == ("ADD", TEA[0]["content"])
    # With the defaults the LLM extracts: the older lines wait for it, today's asks for the event.
    extracted = client("add", [{"role": "user", "content": "I play chess"}], user_id="alice")
    if generation.version == PINNED:
        assert extracted["status"] == "PENDING"
        extracted = ended(http, extracted["event_id"])
    assert extracted["status"] == "SUCCEEDED"
    assert [one["data"]["memory"] for one in extracted["results"]] == ["I play chess"]
    memory = client("get", memory_id)
    assert (memory["memory"], memory["user_id"], memory["metadata"]) == (TEA[0]["content"], "alice", {"source": "chat"})
    assert memory["categories"] == []
    found = generation.search(client, "what does she drink?")
    assert found[0]["id"] == memory_id
    assert 0 < found[0]["score"] <= 1
    assert [one["id"] for one in generation.search(client, "tea", limit=1)] == [memory_id]
    assert [one["id"] for one in generation.search(client, "tea", top_k=1)] == [memory_id]
    if generation.is_first:
        assert client("search", "tea", version="v2", filters=ALICE, top_k=1)[0]["id"] == memory_id
        assert len(client("get_all", version="v2", filters=ALICE)) == 2
        assert len(client("get_all", user_id="alice", top_k=1)) == 1
    assert {one["memory"] for one in generation.listed(client)} == {TEA[0]["content"], "I play chess"}
    assert client("update", memory_id, text="I like coffee now")["memory"] == "I like coffee now"
    assert client("update", memory_id, metadata={"source": "form"})["metadata"] == {"source": "form"}
    if not generation.is_first:
        after = client("update", memory_id, timestamp="2021-01-01T00:00:00Z")
        assert after["created_at"].startswith("2021-01-01")
    steps = client("history", memory_id)
    assert [step["event"] for step in steps][:2] == ["ADD", "UPDATE"]
    assert (steps[1]["old_memory"], steps[1]["new_memory"]) == (TEA[0]["content"], "I like coffee now")
    assert client("delete", memory_id)["message"] == "Memory deleted successfully!"
    if generation.version == PINNED:
        [other] = client("add", TEA, user_id="alice", infer=False)["results"]
        assert client("delete", other["id"], delete_linked=True)["message"]
    with raises(generation, 404, "not_found"):
        client("get", memory_id)
    assert client("delete_all", user_id="alice")["message"] == "Memories deleted successfully!"
    assert generation.listed(client) == []
    # Without a scope it is refused, never "everything".
    with raises(generation, 400, "scope_required"):
        client("delete_all")


def ended(http: Callable[..., Any], event_id: str) -> dict[str, Any]:
    """The event once it is over."""
    deadline = time.monotonic() + 60
    while (event := http("GET", f"/v1/event/{event_id}/").json())["status"] in ("PENDING", "RUNNING"):
        assert time.monotonic() < deadline, "the extraction did not end"
        time.sleep(0.1)
    found: dict[str, Any] = event
    return found


def paging(generation: Generation, client: Client) -> None:
    """Lists page by page to the end."""
    client(
        "add", [{"role": "user", "content": f"memory {number}"} for number in range(5)], user_id="alice", infer=False
    )
    client("add", TEA, user_id="bob", infer=False)
    seen: list[str] = []
    number = 1
    while True:
        page = generation.page(client, number, 2)
        assert page["count"] == 5
        assert (page["previous"] is None) == (number == 1)
        seen += [one["memory"] for one in page["results"]]
        if page["next"] is None:
            break
        number += 1
    assert number == 3
    assert sorted(seen) == [f"memory {number}" for number in range(5)]
    assert generation.page(client, 9, 2)["results"] == []
    if generation.is_first:
        page = client("get_all", user_id="alice", page=2, page_size=2)
        assert (page["count"], len(page["results"])) == (5, 2)
        # It writes a list as a parameter for each item, and a dictionary as Python's text.
        assert client("get_all", user_id="alice", categories=["food", "drink"]) == []
        listed = client(
            "get_all", user_id="bob", metadata="{}", filters=json.dumps(ALICE), fields=["memory", "user_id"]
        )
        assert listed == []
        with raises(generation, 400, "invalid_input", says="filters: is not valid JSON"):
            client("get_all", filters={"user_id": "alice"})


def batches(generation: Generation, client: Client) -> None:
    """Many memories in one call."""
    first, second = [one["id"] for one in generation.listed(client)[:2]]
    answer = client("batch_update", [{"memory_id": first, "text": "one"}, {"memory_id": second, "text": "two"}])
    assert answer["message"] == "Successfully updated 2 memories"
    assert client("get", second)["memory"] == "two"
    answer = client("batch_delete", [{"memory_id": first}, {"memory_id": "no-such-memory"}])
    assert (answer["count"], answer["results"][1]["code"]) == (1, "not_found")
    assert len(generation.listed(client)) == 4
    with raises(generation, 413, "too_large"):
        client("batch_delete", [{"memory_id": str(number)} for number in range(1001)])


def entities(generation: Generation, client: Client) -> None:
    """Users, agents, apps and runs."""
    client("add", TEA, agent_id="helper", infer=False)
    users = client("users")
    assert users["count"] == 3
    assert {(one["type"], one["name"], one["total_memories"]) for one in users["results"]} == {
        ("user", "alice", 4),
        ("user", "bob", 1),
        ("agent", "helper", 1),
    }
    assert client("delete_users", user_id="bob")["message"] == "Entity deleted successfully."
    assert client("users")["count"] == 2
    with raises(generation, 404, "not_found"):
        client("delete_users", user_id="bob")
    assert "successful" in client("reset")["message"]
    assert client("users")["count"] == 0


def project(generation: Generation, client: Client, served: set[str], llm: ScriptedLLM) -> None:
    """The project's settings; feedback and the summary; what belongs to the installation is 501 with a way out."""
    [memory] = client("add", TEA, user_id="alice", infer=False)["results"]
    if "/v1/feedback/" in served:
        said = {"feedback": "positive", "feedback_reason": "it is true"}
        if generation.version == PINNED:
            assert client("feedback", memory["id"], **said)["feedback"] == "POSITIVE"
        else:
            # The call is done by then: the client hands its own telemetry one argument too many.
            with pytest.raises(Raised, match="capture_client_event"):
                client("feedback", memory["id"], **said)
    if "/v1/summary/" in served:
        llm.answer("She drinks tea with lemon.")
        assert client("get_summary", filters=ALICE)["summary"] == "She drinks tea with lemon."
    if methods.PROJECT in served:
        assert client("project.get")["id"] == client.about["project_id"]
        assert client("project.update", custom_instructions="Only food", custom_categories=[{"food": "what is eaten"}])
        fields = ["custom_instructions", "custom_categories"]
        assert client("project.get", fields=fields) == {
            "custom_instructions": "Only food",
            "custom_categories": [{"food": "what is eaten"}],
        }
        assert client("update_project", custom_instructions="Only drinks")["message"]
        assert client("get_project", fields=["custom_instructions"]) == {"custom_instructions": "Only drinks"}
        # None is dropped before it is sent.
        assert client("project.update", custom_instructions="")["message"]
        assert client("project.get", fields=["custom_instructions"]) == {"custom_instructions": None}
        for method, *arguments in (
            ("project.create", "another"),
            ("project.delete",),
            ("project.get_members",),
            ("project.add_member", "a@example.com"),
            ("project.update_member", "a@example.com", "READER"),
            ("project.remove_member", "a@example.com"),
        ):
            with raises(generation, 501, "not_offered", says="memvault"):
                client(method, *arguments)


def exports(generation: Generation, client: Client, served: set[str], llm: ScriptedLLM) -> None:
    """An export is asked for with a schema and read in its shape."""
    if "/v1/exports/" in served:
        schema = {"type": "object", "properties": {"drinks": {"type": "array", "items": {"type": "string"}}}}
        made = client("create_memory_export", schema=schema, filters={"user_id": "alice"})
        assert made["message"]
        for asked in ({"memory_export_id": made["id"]}, {"filters": {"user_id": "alice"}}):
            llm.answer('{"drinks": ["tea"], "secret": "not asked for"}')
            assert list(client("get_memory_export", **asked)) == ["drinks"]
        with raises(generation, 404, "not_found"):
            client("get_memory_export", memory_export_id="no-such-export")


def webhooks(client: Client, project_id: str, served: set[str]) -> None:
    """Webhooks are made, listed, changed and removed."""
    if methods.WEBHOOKS in served:
        url = "https://hooks.example.com/memvault"
        made = client("create_webhook", url=url, name="cache", project_id=project_id, event_types=["memory_add"])
        webhook_id = made["webhook_id"]
        assert [one["name"] for one in client("get_webhooks", project_id=project_id)] == ["cache"]
        client("update_webhook", webhook_id, name="shop")
        assert [one["name"] for one in client("get_webhooks", project_id=project_id)] == ["shop"]
        assert client("delete_webhook", webhook_id)["message"]
        assert client("get_webhooks", project_id=project_id) == []


def profiles(client: Client, served: set[str]) -> None:
    """Profiles are not enabled, and say so in the form that the client knows."""
    if "/v2/profiles/settings/" in served:
        assert client("get_profile", "alice")["status"] == "not_enabled"
        assert client("generate_profile", "alice")["status"] == "not_enabled"
        assert client("sample_profiles", limit=1)["status"] == "not_enabled"
        assert client("get_profile_job", "job")["status"] == "not_enabled"
        assert client("get_profile_settings")["enabled"] is False
        assert client("update_profile_settings", enabled=True)["enabled"] is False


def test_errors(
    generation: Generation,
    url: str,
    secret: str,
    services: Services,
    tenant: TenantId,
    http: Callable[..., Any],
    hold_user: Callable[[str], None],
    busy: Busy,
) -> None:
    client = generation.driver.connect(url, secret)
    with pytest.raises(Raised, match="API key is missing or not valid") as refused:
        generation.driver.connect(url, "mv_wrong")
    assert refused.value.kind == "ValueError"
    reader = generation.driver.connect(url, principal_of(services, tenant, role="reader")[1])
    key = http("POST", "/v1/keys/", json={"role": "agent"}).json()
    revoked = generation.driver.connect(url, key["api_key"])
    http("DELETE", f"/v1/keys/{key['id']}/")
    services.authenticator._cache.clear()
    client("add", TEA, user_id="alice", infer=False)
    with raises(generation, 400, "invalid_input"):
        filters = {"version": "v2"} if generation.is_first else {}
        client("search", "tea", filters={"owner": "x"}, **filters)
    with raises(generation, 400, "invalid_input"):
        client("add", TEA, infer=False)
    with raises(generation, 401, "unauthenticated"):
        revoked("users")
    with raises(generation, 403, "forbidden"):
        reader("add", TEA, user_id="alice", infer=False)
    with raises(generation, 404, "not_found"):
        client("get", "no-such-memory")
    with client.with_header("Idempotency-Key", "k"):
        client("add", TEA, user_id="bob", infer=False)
        with raises(generation, 409, "idempotency_key_reused"):
            client("add", [{"role": "user", "content": "something else"}], user_id="bob", infer=False)
    [held] = client("add", TEA, user_id="carol", infer=False)["results"]
    hold_user("carol")
    with raises(generation, 409, "legal_hold", says="case-1"):
        client("delete", held["id"])
    for length in (20_001, 5_000_000):
        with raises(generation, 413, "too_large"):
            client("add", [{"role": "user", "content": "x" * length}], user_id="alice", infer=False)
    limited = generation.driver.connect(url, busy.secret)
    busy.stop()
    with raises(generation, 429, "rate_limited") as refused:
        [limited("users") for _ in range(5)]
    if generation.kind_of(429) == "RateLimitError":
        assert refused[0].told["retry_after"] >= 1
        assert refused[0].told["debug"]["x_ratelimit_limit"] == "2"
    services.index.close()
    with raises(generation, 503, "index_unavailable"):
        generation.search(client, "tea")
    # Reads by id and lists go on without the index.
    assert len(generation.listed(client)) == 1
