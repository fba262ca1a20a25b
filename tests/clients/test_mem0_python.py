"""Mem0's own Python client works when only its `host` is changed."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from mem0 import AsyncMemoryClient, MemoryClient
from mem0.client.types import AddMemoryOptions, DeleteAllMemoryOptions, SearchMemoryOptions
from mem0.exceptions import (
    AuthenticationError,
    MemoryError,
    MemoryNotFoundError,
    MemoryQuotaExceededError,
    NetworkError,
    ValidationError,
)

from service.scope import TenantId
from service.wiring import Services
from tests.conftest import principal_of

pytestmark = [
    pytest.mark.clients,
    # What Mem0 and the libraries under it warn of is not ours to mend.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

ALICE = {"AND": [{"user_id": "alice"}]}
TEA = [{"role": "user", "content": "I like tea with lemon"}]


Connect = Callable[[str], MemoryClient]


@pytest.fixture
def connect(url: str) -> Iterator[Connect]:
    """Make clients of the served instance, each with a connection that is closed in the end."""
    with ExitStack() as stack:
        yield lambda key: MemoryClient(api_key=key, host=url, client=stack.enter_context(httpx.Client()))


@pytest.fixture
def client(connect: Connect, secret: str) -> MemoryClient:
    """A client with an admin key."""
    return connect(secret)


def test_the_constructor_learns_its_project_and_no_email(client: MemoryClient, tenant: TenantId) -> None:
    assert client.project_id == client.org_id == str(tenant)
    assert client.user_email is None


def test_a_wrong_key_is_refused_in_words(connect: Connect) -> None:
    with pytest.raises(ValueError, match="API key is missing or not valid"):
        connect("mv_wrong")


def test_the_life_of_a_memory(client: MemoryClient) -> None:
    added = client.add(TEA, user_id="alice", metadata={"source": "chat"}, infer=False)
    assert added["status"] == "SUCCEEDED"
    [result] = added["results"]
    memory_id = result["id"]
    assert result["event"] == "ADD"
    assert result["data"]["memory"] == "I like tea with lemon"

    memory = client.get(memory_id)
    assert memory["memory"] == "I like tea with lemon"
    assert memory["user_id"] == "alice"
    assert memory["metadata"] == {"source": "chat"}
    assert memory["categories"] == []

    [hit] = client.search("what does she drink?", filters=ALICE, threshold=0.0)["results"]
    assert hit["id"] == memory_id
    assert 0 <= hit["score"] <= 1

    assert client.update(memory_id, text="I like coffee now")["memory"] == "I like coffee now"
    assert client.update(memory_id, metadata={"source": "form"})["metadata"] == {"source": "form"}
    assert client.update(memory_id, expiration_date="2099-01-31")["expiration_date"] == "2099-01-31"
    assert client.update(memory_id, expiration_date=None)["expiration_date"] is None
    steps = client.history(memory_id)
    assert [step["event"] for step in steps][:2] == ["ADD", "UPDATE"]
    assert (steps[1]["old_memory"], steps[1]["new_memory"]) == ("I like tea with lemon", "I like coffee now")

    assert "message" in client.delete(memory_id)
    with pytest.raises(MemoryNotFoundError):
        client.get(memory_id)
    assert client.search("coffee", filters=ALICE)["results"] == []


def test_an_add_with_the_defaults_and_a_plain_text(client: MemoryClient) -> None:
    assert client.add("I play tennis", user_id="alice")["status"] == "SUCCEEDED"
    assert client.search("tennis", filters={"user_id": "alice"})["results"][0]["memory"] == "I play tennis"


def test_the_options_objects(client: MemoryClient) -> None:
    client.add(TEA, options=AddMemoryOptions(filters={"user_id": "alice"}, infer=False, timestamp=1_700_000_000))
    client.add(TEA, options=AddMemoryOptions(filters={"user_id": "bob"}, infer=False))
    found = client.search("tea", options=SearchMemoryOptions(filters=ALICE, top_k=5, rerank=True, fields=["memory"]))
    [hit] = found["results"]
    assert hit["memory"] == "I like tea with lemon"
    # The client writes the dictionary as Python's text into the query: it must never pass for "everything".
    with pytest.raises(ValidationError, match="scope"):
        client.delete_all(options=DeleteAllMemoryOptions(filters={"user_id": "alice"}))
    assert client.get_all(filters={"OR": [{"user_id": "alice"}, {"user_id": "bob"}]})["count"] == 2


def test_get_all_goes_through_pages(client: MemoryClient) -> None:
    client.add([{"role": "user", "content": f"memory {number}"} for number in range(5)], user_id="alice", infer=False)
    client.add("another's", user_id="bob", infer=False)
    assert client.get_all(filters=ALICE)["count"] == 5
    seen: list[str] = []
    page = 1
    while True:
        answer = client.get_all(filters=ALICE, page=page, page_size=2)
        seen += [memory["memory"] for memory in answer["results"]]
        if answer["next"] is None:
            break
        assert answer["next"].startswith("/v3/memories/?")
        page += 1
    assert page == 3
    assert sorted(seen) == [f"memory {number}" for number in range(5)]


def test_delete_all_deletes_what_it_names_and_never_everything(client: MemoryClient) -> None:
    client.add(TEA, user_id="alice", infer=False)
    client.add(TEA, user_id="bob", infer=False)
    with pytest.raises(ValidationError, match="name a scope"):
        client.delete_all()
    # It would reach us as Python's text, and without it all of Alice's would go.
    with pytest.raises(ValidationError, match="metadata: cannot narrow a deletion"):
        client.delete_all(user_id="alice", metadata={"session": "s1"})
    assert client.get_all(filters={})["count"] == 2
    assert "message" in client.delete_all(user_id="alice")
    assert [memory["user_id"] for memory in client.get_all(filters={})["results"]] == ["bob"]


def test_users_are_listed_and_deleted(client: MemoryClient) -> None:
    for name in ("alice", "b/ob ü"):
        client.add(TEA, user_id=name, infer=False)
    client.add(TEA, agent_id="helper", infer=False)
    users = client.users()
    assert users["count"] == 3
    assert {(one["type"], one["name"], one["total_memories"]) for one in users["results"]} == {
        ("user", "alice", 1),
        ("user", "b/ob ü", 1),
        ("agent", "helper", 1),
    }
    assert "message" in client.delete_users(user_id="b/ob ü")
    assert client.users()["count"] == 2
    with pytest.raises(MemoryNotFoundError):
        client.delete_users(user_id="b/ob ü")
    assert "message" in client.reset()
    assert client.users()["count"] == 0
    assert client.get_all(filters={})["count"] == 0


def test_more_users_than_a_page_holds(client: MemoryClient) -> None:
    for number in range(103):
        client.add(TEA, user_id=f"user {number}", infer=False)
    users = client.users()
    assert (users["count"], len(users["results"]), users["next"], users["previous"]) == (103, 103, None, None)
    page = client.client.get("/v1/entities/?page=2").json()
    assert (page["count"], len(page["results"]), page["next"]) == (103, 3, None)
    assert client.client.get("/v1/entities/?page_size=50").json()["next"] is not None
    assert "message" in client.reset()
    empty = client.users()
    assert (empty["count"], empty["results"], empty["next"]) == (0, [], None)
    assert client.get_all(filters={})["count"] == 0


def test_a_transcript_with_calls_of_tools(client: MemoryClient) -> None:
    transcript: list[dict[str, Any]] = [
        {"role": "system", "content": "Answer by the timetable. " * 1_000},
        {"role": "user", "content": "When does the train leave?"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "function": {"name": "timetable"}}]},
        {"role": "tool", "content": "", "tool_call_id": "c1"},
        {"role": "assistant", "content": "At noon"},
    ]
    added = client.add(transcript, user_id="alice", infer=False, excludes="places")
    assert [one["memory"] for one in added["results"]] == ["When does the train leave?", "At noon"]
    assert added["warnings"][0].startswith("excludes: ignored")
    picture = {"role": "user", "content": {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}}
    with pytest.raises(ValidationError, match="no image or document"):
        client.add(picture, user_id="alice")


def test_events_tell_of_each_add(client: MemoryClient) -> None:
    event_id = client.add(TEA, user_id="alice", infer=False)["event_id"]
    event = client.client.get(f"/v1/event/{event_id}/").json()
    assert (event["status"], event["results"][0]["memory"]) == ("SUCCEEDED", "I like tea with lemon")
    assert client.client.get("/v1/events/").json()["count"] == 1


def test_errors_become_the_clients_exceptions(
    client: MemoryClient, connect: Connect, services: Services, tenant: TenantId
) -> None:
    reader = connect(principal_of(services, tenant, role="reader")[1])
    key = client.client.post("/v1/keys/", json={"role": "reader"}).json()
    revoked = connect(key["api_key"])
    client.client.delete(f"/v1/keys/{key['id']}/")
    services.authenticator._cache.clear()
    cases: list[tuple[type[MemoryError], int, Callable[[], Any]]] = [
        (ValidationError, 400, lambda: client.search("tea", filters={"owner": "x"})),
        (ValidationError, 400, lambda: client.add(TEA, infer=False)),
        (AuthenticationError, 401, lambda: revoked.users()),
        (AuthenticationError, 403, lambda: reader.add(TEA, user_id="alice", infer=False)),
        (MemoryNotFoundError, 404, lambda: client.get("no-such-memory")),
        (MemoryQuotaExceededError, 413, lambda: client.add("x" * 20_001, user_id="alice", infer=False)),
        (MemoryQuotaExceededError, 413, lambda: client.add("x" * 5_000_000, user_id="alice", infer=False)),
    ]
    for kind, status, call in cases:
        with pytest.raises(kind) as caught:
            call()
        assert caught.value.debug_info["status_code"] == status
        # Our own words reach the user, and the request id that the audit trail knows.
        assert caught.value.message == caught.value.details["detail"]
        assert caught.value.details["request_id"]
    services.index.close()
    with pytest.raises(NetworkError):
        client.search("tea", filters=ALICE)


def test_the_asynchronous_client(url: str, secret: str) -> None:
    async def life() -> None:
        async with AsyncMemoryClient(api_key=secret, host=url) as client:
            [result] = (await client.add(TEA, user_id="alice", infer=False))["results"]
            memory_id = result["id"]
            assert (await client.get(memory_id))["memory"] == "I like tea with lemon"
            assert (await client.search("tea", filters=ALICE))["results"][0]["id"] == memory_id
            assert (await client.get_all(filters=ALICE, page=1, page_size=10))["count"] == 1
            assert (await client.update(memory_id, text="I like milk"))["memory"] == "I like milk"
            assert len(await client.history(memory_id)) == 2
            assert (await client.users())["count"] == 1
            assert "message" in await client.delete(memory_id)
            with pytest.raises(ValidationError):
                await client.delete_all()
            assert "message" in await client.delete_all(user_id="alice")
            assert "message" in await client.delete_users(user_id="alice")

    asyncio.run(life())


def test_many_callers_at_once(url: str, secret: str) -> None:
    async def rush() -> None:
        headers = {"Authorization": f"Token {secret}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:

            async def one(number: int) -> None:
                body = {
                    "messages": [{"role": "user", "content": f"fact {number}"}],
                    "user_id": f"u{number}",
                    "infer": False,
                }
                answer = await client.post("/v3/memories/add/", json=body)
                assert answer.status_code == 200, answer.text
                found = await client.post(
                    "/v3/memories/search/",
                    json={"query": "fact", "filters": {"user_id": f"u{number}"}, "threshold": 0.0},
                )
                assert [hit["memory"] for hit in found.json()["results"]] == [f"fact {number}"]

            await asyncio.gather(*(one(number) for number in range(40)))
            assert (await client.post("/v3/memories/", json={})).json()["count"] == 40

    asyncio.run(rush())
