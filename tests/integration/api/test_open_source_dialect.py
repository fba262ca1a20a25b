"""The open-source server's dialect answers as Mem0's own server does: held against the real `Memory` behind it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from bench.stock import Stock
from service import clock
from service.api.oss.schemas import OssAddOut
from service.embeddings.minilm import MiniLM
from service.main import create_app
from service.scope import TenantId
from service.wiring import Services
from tests.conftest import MakeServices, principal_of
from tests.integration.api.conftest import MakeClient, assert_error
from tests.llm.scripted import ScriptedLLM

pytestmark = [
    pytest.mark.integration,
    # What Mem0 and the libraries under it warn of is not ours to mend.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

TEA, WINE = "Alice likes tea with lemon", "Alice drinks red wine on Sundays"
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00")


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Iterator[Any]:
    """Mem0's own `Memory`, with the same embedding model and no LLM: what its server's routes call."""
    one = Stock(tmp_path_factory.mktemp("stock"), MiniLM(model_folder))
    yield one._memory
    one.close()


def alike(value: Any) -> Any:
    """A value with what differs from run to run (ids, times, scores) made equal, its kind kept."""
    if isinstance(value, dict):
        return {key: alike(one) for key, one in value.items()}
    if isinstance(value, list):
        return [alike(one) for one in value]
    if isinstance(value, str):
        return "id" if _ID.fullmatch(value) else "time" if _TIME.fullmatch(value) else value
    return "number" if isinstance(value, float) else value


def messages(*texts: str, **fields: Any) -> list[dict[str, Any]]:
    """Messages of a user."""
    return [{"role": "user", "content": text, **fields} for text in texts]


def test_the_life_of_a_memory_key_by_key_as_mem0_answers(client: TestClient, stock: Any) -> None:
    def both(theirs: Any, ours: Any) -> None:
        assert ours.status_code == 200, ours.text
        assert alike(ours.json()) == alike(theirs)

    day = (clock.today() + timedelta(days=9)).isoformat()
    fields: dict[str, Any] = {"user_id": "alice", "run_id": "r1", "metadata": {"source": "chat", "stars": 5}}
    fields |= {"infer": False}
    added = stock.add(messages(TEA, name="Alice"), expiration_date=day, **fields)
    made = client.post("/memories", json={"messages": messages(TEA, name="Alice"), "expiration_date": day, **fields})
    both(added, made)
    their_id, our_id = added["results"][0]["id"], made.json()["results"][0]["id"]
    both(stock.get(their_id), client.get(f"/memories/{our_id}"))
    both(stock.get_all(filters={"user_id": "alice"}), client.get("/memories?user_id=alice"))
    filters = {"user_id": "alice", "stars": {"gt": 3}}
    found = stock.search("tea", filters=filters, explain=True)
    assert found["results"]
    both(found, client.post("/search", json={"query": "tea", "filters": filters, "explain": True}))
    both(
        stock.search("tea", filters={"user_id": "alice"}),
        client.post("/search", json={"query": "tea", "user_id": "alice"}),
    )
    both(
        stock.update(their_id, text=WINE, metadata={"stars": 4}, expiration_date=None),
        client.put(f"/memories/{our_id}", json={"text": WINE, "metadata": {"stars": 4}, "expiration_date": None}),
    )
    # Metadata is added to what is there, in both.
    after = client.get(f"/memories/{our_id}").json()
    theirs = stock.get(their_id)
    assert after["metadata"] == theirs["metadata"] == {"source": "chat", "stars": 4}
    # It keeps the key of an expiration date that was cleared; both say that there is none.
    assert theirs.pop("expiration_date") is None
    assert alike(after) == alike(theirs)
    both(stock.history(their_id), client.get(f"/memories/{our_id}/history"))
    assert client.delete(f"/memories/{our_id}").json() == {"message": "Memory deleted successfully"}
    stock.delete(their_id)
    steps, their_steps = client.get(f"/memories/{our_id}/history").json(), stock.history(their_id)
    assert [(one["event"], one["is_deleted"], set(one)) for one in steps] == [
        (one["event"], one["is_deleted"], set(one)) for one in their_steps
    ]
    # Theirs keeps the text of what was deleted; ours does not.
    assert their_steps[-1]["old_memory"] == WINE
    assert all(one["old_memory"] is None and one["new_memory"] is None for one in steps)


MORE: list[dict[str, Any]] = [
    {},
    {"kind": "drink"},
    {"kind": "*"},
    {"kind": {"eq": "drink"}},
    {"kind": {"ne": "food"}},
    {"kind": {"in": ["drink", "food"]}},
    {"kind": ["drink"]},
    {"kind": {"nin": ["food"]}},
    {"stars": {"gte": 3}},
    {"stars": {"gt": 1, "lt": 5}},
    {"AND": [{"kind": "drink"}, {"stars": {"gte": 2}}]},
    {"OR": [{"kind": "food"}, {"stars": {"lte": 2}}]},
    {"NOT": [{"kind": "food"}]},
]


def test_filters_find_what_mem0_finds(client: TestClient, stock: Any) -> None:
    things = [("green tea", "drink", 5), ("a cup of tea", "drink", 2), ("tea cake", "food", 4)]
    for text, kind, stars in things:
        fields = {"user_id": "filters", "metadata": {"kind": kind, "stars": stars}, "infer": False}
        stock.add(messages(text), **fields)
        assert client.post("/memories", json={"messages": messages(text), **fields}).status_code == 200
    for more in MORE:
        filters = {"user_id": "filters", **more}
        theirs = stock.search("tea", filters=filters, threshold=0.0)["results"]
        answer = client.post("/search", json={"query": "tea", "filters": filters, "threshold": 0.0})
        assert answer.status_code == 200, (more, answer.text)
        assert {one["memory"] for one in answer.json()["results"]} == {one["memory"] for one in theirs}, more
        assert theirs, more


def test_an_add_waits_for_the_extraction(make_services: MakeServices, stock: Any) -> None:
    from mem0.utils.factory import LlmFactory

    with ScriptedLLM() as llm:
        llm.facts({"text": "Alice lives in Rome", "attributed_to": "user"})
        stock.llm = LlmFactory.create("openai", dict(llm.config))
        theirs = stock.add(messages("I live in Rome"), user_id="extracted")
        theirs_got = stock.get(theirs["results"][0]["id"])
        flags = {"provider": "openai", "config": llm.config, "timeout": 5.0, "attempts": 1}
        services = make_services(worker=True, llm=flags, queue={"poll_interval": 0.1})
        _, secret = principal_of(services, services.installation.tenants.create("acme").id)
        with TestClient(create_app(services), headers={"X-API-Key": secret}) as client:
            llm.facts({"text": "Alice lives in Rome", "attributed_to": "user"})
            body: dict[str, Any] = {"messages": messages("I live in Rome"), "user_id": "alice", "prompt": "only cities"}
            answer = client.post("/memories", json=body).json()
            [result] = answer["results"]
            assert alike({"results": answer["results"]}) == alike(theirs)
            assert answer["warnings"] == [
                "prompt: ignored; what is extracted is set by the installation, not by callers"
            ]
            assert all("only cities" not in one.prompt for one in llm.requests)
            got = client.get(f"/memories/{result['id']}").json()
            assert alike(got) == alike(theirs_got | {"user_id": "alice"})
            assert got["attributed_to"] == "user"
            llm.by_default(lambda request: "First she opened the door, then she left.")
            body = {"messages": messages("done"), "agent_id": "helper", "memory_type": "procedural_memory"}
            [result] = client.post("/memories", json=body).json()["results"]
            assert result["memory"] == "First she opened the door, then she left."
            llm.status(500).status(500).status(500)
            refused = client.post("/memories", json={"messages": messages("again"), "user_id": "alice"})
            assert_error(refused, 503, "unavailable")


def test_an_add_that_takes_too_long_names_its_event(make_services: MakeServices) -> None:
    services = make_services(
        llm={"provider": "openai", "model": "none", "api_key": "none", "base_url": "http://127.0.0.1:9"},
        server={"event_wait": 0.2},
    )
    _, secret = principal_of(services, services.installation.tenants.create("acme").id)
    with TestClient(create_app(services), headers={"Authorization": f"Bearer {secret}"}) as client:
        answer = client.post("/memories", json={"messages": messages("tea"), "user_id": "alice"}).json()
        assert (answer["results"], answer["status"]) == ([], "PENDING")
        assert answer["event_id"] in answer["warnings"][0]
        assert client.get(f"/v1/event/{answer['event_id']}/").json()["status"] == "PENDING"


def test_without_an_llm_an_add_is_stored_as_it_stands_and_says_so(client: TestClient) -> None:
    answer = client.post("/memories", json={"messages": messages(TEA), "user_id": "alice"}).json()
    assert [one["memory"] for one in answer["results"]] == [TEA]
    assert "llm.provider" in answer["warnings"][0]


def test_what_waits_for_a_reviewer_is_answered_as_documented(client: TestClient, tenant: TenantId) -> None:
    project = f"/api/v1/orgs/organizations/{tenant}/projects/{tenant}/"
    assert client.patch(project, json={"review_required": True}).status_code == 200
    said = {"messages": messages(TEA), "user_id": "alice"}
    (result,) = OssAddOut.model_validate(client.post("/memories", json=said).json()).results
    assert (result.event, result.memory) == ("QUARANTINED", None)


def test_lists_and_entities(client: TestClient) -> None:
    for number in range(22):
        client.post("/memories", json={"messages": messages(f"fact {number}"), "user_id": "alice", "infer": False})
    client.post("/memories", json={"messages": messages("a hint"), "agent_id": "helper", "infer": False})
    client.post("/memories", json={"messages": messages("bye"), "user_id": "zoe", "run_id": "r/1", "infer": False})

    def listed(query: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = client.get(f"/memories{query}").json()["results"]
        return found

    # Mem0's own bounds: twenty of a scope, a thousand of everything.
    assert len(listed("?user_id=alice")) == 20
    assert len(listed("?user_id=alice&top_k=22")) == 22
    assert listed("?user_id=alice&top_k=0") == []
    assert len(listed("")) == 24
    assert {"user_id", "agent_id", "run_id", "expiration_date", "metadata"} <= set(listed("")[0])
    assert len(listed("?user_id=zoe&run_id=r/1")) == 1
    entities = client.get("/entities").json()
    assert [(one["type"], one["id"], one["total_memories"]) for one in entities] == [
        ("agent", "helper", 1),
        ("run", "r/1", 1),
        ("user", "alice", 22),
        ("user", "zoe", 1),
    ]
    assert set(entities[0]) == {"id", "type", "total_memories", "created_at", "updated_at"}
    assert client.delete("/entities/run/r%2F1").json() == {"message": "Entity deleted"}
    assert client.delete("/memories?user_id=alice").json() == {"message": "All relevant memories deleted"}
    assert [one["id"] for one in client.get("/entities").json()] == ["helper"]


def test_an_app_is_one_of_the_ids(client: TestClient) -> None:
    for app, text in (("shop", "likes tea"), ("crm", "likes milk"), (None, "likes cake")):
        body = {"messages": messages(text), "user_id": "alice", "app_id": app, "infer": False}
        assert client.post("/memories", json=body).status_code == 200

    def found(answer: Any) -> list[str]:
        return sorted(one["memory"] for one in answer.json()["results"])

    assert found(client.get("/memories?app_id=shop")) == ["likes tea"]
    assert found(client.get("/memories?user_id=alice&app_id=crm")) == ["likes milk"]
    search = {"query": "likes", "user_id": "alice", "threshold": 0.0}
    assert found(client.post("/search", json=search | {"app_id": "shop"})) == ["likes tea"]
    assert client.delete("/memories?user_id=alice&app_id=shop").status_code == 200
    assert found(client.get("/memories?user_id=alice")) == ["likes cake", "likes milk"]
    assert_error(client.delete("/memories?user_id=alice&app_id="), 400)


def test_a_list_is_not_narrowed_by_what_it_does_not_take(client: TestClient) -> None:
    client.post("/memories", json={"messages": messages(TEA), "user_id": "alice", "infer": False})
    for query in ("filters=%7B%7D", "metadata=%7B%7D", "categories=food", "keywords=milk", "start_date=2026-01-01"):
        told = assert_error(client.get(f"/memories?user_id=alice&{query}"), 400, "invalid_input")["detail"]
        assert query.split("=")[0] in told
        assert "POST /search" in told
    # What clients send by themselves narrows nothing.
    assert len(client.get("/memories?user_id=alice&source=CLI&org_id=o").json()["results"]) == 1


def test_expired_memories_are_shown_only_on_request(client: TestClient, services: Services, monkeypatch: Any) -> None:
    today = clock.today()
    body = {"messages": messages(TEA), "user_id": "alice", "infer": False, "expiration_date": today.isoformat()}
    [made] = client.post("/memories", json=body).json()["results"]
    monkeypatch.setattr(clock, "today", lambda: today + timedelta(days=1))
    assert client.get("/memories?user_id=alice").json()["results"] == []
    assert len(client.get("/memories?user_id=alice&show_expired=true").json()["results"]) == 1
    search = {"query": "tea", "filters": {"user_id": "alice"}}
    assert client.post("/search", json=search).json()["results"] == []
    assert len(client.post("/search", json=search | {"show_expired": True}).json()["results"]) == 1
    assert client.delete(f"/memories/{made['id']}").status_code == 200


def test_what_is_wrong_is_refused_in_words(client: TestClient) -> None:
    assert_error(client.post("/memories", json={"messages": messages("tea")}), 400)
    assert_error(client.post("/memories", json={"messages": [], "user_id": "a"}), 400)
    body = {"messages": messages("tea"), "user_id": "a", "memory_type": "core"}
    assert_error(client.post("/memories", json=body), 400)
    for filters in (None, {}, {"kind": "x"}, {"OR": [{"user_id": "a"}]}):
        assert_error(client.post("/search", json={"query": "tea", "filters": filters}), 400, "scope_required")
    assert_error(client.post("/search", json={"query": "tea", "filters": {"user_id": "a", "AND": "x"}}), 400)
    assert_error(
        client.post("/search", json={"query": "tea", "filters": {"user_id": "a", "x": {"gt": 1, "y": 1}}}), 400
    )
    nested: dict[str, Any] = {"x": 1}
    for _ in range(200):
        nested = {"AND": [nested]}
    assert_error(client.post("/search", json={"query": "tea", "filters": {"user_id": "a", **nested}}), 400)
    assert_error(client.delete("/memories"), 400, "scope_required")
    assert_error(client.delete("/memories?user_id="), 400)
    for method in ("GET", "PUT", "DELETE"):
        for memory_id in ("no-id", "0190a1b2-3c4d-7e5f-8a9b-0c1d2e3f4a5b"):
            answer = client.request(method, f"/memories/{memory_id}", json={"text": "x"} if method == "PUT" else None)
            assert_error(answer, 404, "not_found")
    assert_error(client.get("/memories/no-id/history"), 404, "not_found")
    assert_error(client.delete("/entities/planet/x"), 404)


def test_what_would_let_a_caller_rewrite_policy_is_not_there(client: TestClient) -> None:
    for method, path in (
        ("POST", "/configure"),
        ("GET", "/configure"),
        ("POST", "/reset"),
        ("POST", "/generate-instructions"),
    ):
        assert_error(client.request(method, path, json={}), 404, "not_found")


def test_a_bound_key_reaches_its_user_only(client: TestClient, make_client: MakeClient, tenant: TenantId) -> None:
    made: Callable[[str], str] = lambda user: client.post(  # noqa: E731
        "/memories", json={"messages": messages(f"{user} likes tea"), "user_id": user, "infer": False}
    ).json()["results"][0]["id"]
    alices = made("alice")
    made("bob")
    bob = make_client(role="agent", users=frozenset({"bob"}))
    assert [one["user_id"] for one in bob.get("/memories").json()["results"]] == ["bob"]
    assert_error(bob.get("/memories?user_id=alice"), 403, "forbidden")
    assert_error(bob.post("/search", json={"query": "tea", "filters": {"user_id": "alice"}}), 403, "forbidden")
    wide = {"user_id": "bob", "AND": [{"user_id": "alice"}]}
    assert_error(bob.post("/search", json={"query": "tea", "filters": wide}), 403, "forbidden")
    assert_error(bob.post("/memories", json={"messages": messages("x"), "user_id": "alice", "infer": False}), 403)
    assert_error(bob.get(f"/memories/{alices}"), 404)
    assert_error(bob.put(f"/memories/{alices}", json={"text": "x"}), 404)
    assert_error(bob.delete(f"/memories/{alices}"), 404)
    assert_error(bob.get(f"/memories/{alices}/history"), 404)
    assert [one["id"] for one in bob.get("/entities").json()] == ["bob"]
    assert_error(bob.delete("/entities/user/bob"), 403, "forbidden")
