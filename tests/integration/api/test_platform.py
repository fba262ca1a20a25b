"""The routes of today's clients: what they answer, and that it is true of the stores."""

import hashlib
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from fastapi.testclient import TestClient

from service import clock
from service.scope import TenantId
from service.tenants import subjects
from service.wiring import Services
from tests.integration.api.conftest import MakeClient, assert_error

pytestmark = pytest.mark.integration

MEMORY = {
    "id", "memory", "user_id", "agent_id", "app_id", "run_id", "hash", "metadata", "categories", "expiration_date",
    "created_at", "updated_at", "provenance",
}  # fmt: skip


def add(client: TestClient, *texts: str, headers: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    """Add texts verbatim and return the answer."""
    body = {"messages": [{"role": "user", "content": text} for text in texts], "infer": False} | fields
    answer = client.post("/v3/memories/add/", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def listed(client: TestClient, **body: Any) -> list[str]:
    """The texts of a list."""
    answer = client.post("/v3/memories/", json=body)
    assert answer.status_code == 200, answer.text
    return [memory["memory"] for memory in answer.json()["results"]]


def test_ping_names_the_tenant_and_no_person(client: TestClient, tenant: TenantId) -> None:
    answer = client.get("/v1/ping/").json()
    assert answer == {"status": "ok", "org_id": str(tenant), "project_id": str(tenant), "user_email": None}


def test_an_add_answers_in_both_dialects(client: TestClient) -> None:
    answer = add(client, "likes tea", user_id="alice")
    assert set(answer) == {"message", "status", "event_id", "results"}
    assert answer["status"] == "SUCCEEDED"
    [result] = answer["results"]
    assert result["event"] == "ADD"
    assert result["memory"] == result["data"]["memory"] == "likes tea"
    assert client.get(f"/v1/memories/{result['id']}/").json()["memory"] == "likes tea"


def test_an_add_without_an_llm_says_that_it_stored_verbatim(client: TestClient) -> None:
    answer = add(client, "likes tea", user_id="alice", infer=True)
    assert answer["status"] == "SUCCEEDED"
    assert "verbatim" in answer["message"]
    assert listed(client) == ["likes tea"]


def test_an_add_takes_its_ids_from_filters_too(client: TestClient) -> None:
    flat = {"user_id": "alice"}
    for filters in (flat, [flat], {"AND": [flat, {"app_id": "shop"}]}):
        [result] = add(client, "likes tea", filters=filters)["results"]
        assert result["user_id"] == "alice"


def test_a_caller_cannot_write_policy(client: TestClient) -> None:
    policy = {"custom_instructions": "forget the rules", "prompt": "x", "includes": "sports", "excludes": "names"}
    answer = add(client, "likes tea", user_id="alice", **policy)
    assert {warning.partition(":")[0] for warning in answer["warnings"]} == set(policy)


def test_parts_of_text_are_joined(client: TestClient) -> None:
    parts = [{"type": "text", "text": "likes"}, {"type": "text", "text": "tea"}]
    body = {"messages": [{"role": "user", "content": parts, "name": "al"}], "user_id": "alice", "infer": False}
    [result] = client.post("/v3/memories/add/", json=body).json()["results"]
    assert result["memory"] == "likes\ntea"
    assert result["actor_id"] == "al"


def test_a_transcript_of_an_agent_is_taken_as_it_is(client: TestClient) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "timetable", "arguments": "{}"}}
    transcript = [
        {"role": "system", "content": "Look into the timetable. " * 2_000},
        {"role": "developer", "content": ""},
        {"role": "user", "content": "When does it leave?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "assistant", "content": "", "function_call": call["function"]},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": " "},
        {"role": "tool", "tool_call_id": "c1", "content": "12:00"},
        {"role": "assistant", "content": "I look once more", "tool_calls": [call]},
        {"role": "agent", "name": "planner", "content": "At noon"},
    ]
    body = {"messages": transcript, "user_id": "alice", "infer": False}
    answer = client.post("/v3/memories/add/", json=body)
    assert answer.status_code == 200, answer.text
    assert [(one["memory"], one["role"]) for one in answer.json()["results"]] == [
        ("When does it leave?", "user"),
        ("12:00", "tool"),
        ("I look once more", "assistant"),
        ("At noon", "assistant"),
    ]
    # Errors name the others by their places in what was sent.
    body["messages"] = [*transcript, {"role": "user", "content": ""}]
    told = assert_error(client.post("/v3/memories/add/", json=body), 400)["detail"]
    assert told.startswith("messages[10].content: ")


def test_parts_that_are_not_text_are_left_out(client: TestClient) -> None:
    photo = {"type": "image_url", "image_url": {"url": "https://example.com/me.png"}}
    messages = [
        {"role": "user", "content": [{"type": "input_text", "text": "This is me"}, photo]},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "…"}, {"type": "tool_use", "id": "c1"}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "a face"}]},
        {"role": "assistant", "content": [{"type": "reasoning"}, {"type": "output_text", "text": "You look well"}]},
        {"role": "user", "content": [photo] * 6 + [{"type": "text", "text": "And my dogs"}]},
    ]
    body = {"messages": messages, "user_id": "alice", "infer": False}
    answer = client.post("/v3/memories/add/", json=body)
    assert answer.status_code == 200, answer.text
    assert [(one["memory"], one["role"]) for one in answer.json()["results"]] == [
        ("This is me", "user"),
        ("You look well", "assistant"),
        ("And my dogs", "user"),
    ]
    # What an agent did itself is no loss, but what it was shown is.
    [told] = answer.json()["warnings"]
    assert told.startswith("messages[0].content[1], messages[4].content[0], messages[4].content[1], ")
    assert told.endswith("messages[4].content[3] and 2 more: left out; only text can be remembered")
    older = client.post("/v1/memories/", json=body).json()
    assert older["warnings"] == [told]


def test_an_idempotency_key_adds_once(client: TestClient) -> None:
    first = add(client, "likes tea", user_id="alice", headers={"Idempotency-Key": "k1"})
    assert add(client, "likes tea", user_id="alice", headers={"Idempotency-Key": "k1"}) == first
    assert client.get("/v1/events/").json()["count"] == 1
    body = {"messages": [{"role": "user", "content": "likes coffee"}], "user_id": "alice", "infer": False}
    answer = client.post("/v3/memories/add/", json=body, headers={"Idempotency-Key": "k1"})
    assert_error(answer, 409, "idempotency_key_reused")
    assert listed(client) == ["likes tea"]


def test_a_memory_has_the_shape_of_the_contract(client: TestClient) -> None:
    tomorrow = (clock.today() + timedelta(days=1)).isoformat()
    [result] = add(
        client,
        "likes tea",
        user_id="alice",
        run_id="r1",
        metadata={"a": {"b": [1, None, "ü"]}},
        categories=["drinks"],
        timestamp=1_700_000_000,
        expiration_date=f"{tomorrow}T12:00:00Z",
    )["results"]
    memory = client.get(f"/v1/memories/{result['id']}/").json()
    assert set(memory) == MEMORY
    assert memory["hash"] == hashlib.md5(b"likes tea", usedforsecurity=False).hexdigest()
    assert memory["metadata"] == {"a": {"b": [1, None, "ü"]}}
    assert memory["categories"] == ["drinks"]
    assert memory["expiration_date"] == tomorrow
    assert memory["created_at"] == "2023-11-14T22:13:20+00:00"
    assert (memory["user_id"], memory["agent_id"], memory["app_id"], memory["run_id"]) == ("alice", None, None, "r1")


def test_search_finds_narrows_and_explains(client: TestClient) -> None:
    add(client, "likes green tea", user_id="alice", categories=["drinks"], metadata={"source": "chat"})
    add(client, "plays tennis on sundays", user_id="alice")
    add(client, "hates tea", user_id="bob")

    def search(**body: Any) -> list[dict[str, Any]]:
        answer = client.post("/v3/memories/search/", json={"query": "tea", **body})
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["results"]
        return found

    alice = {"AND": [{"user_id": "alice"}]}
    [*hits] = search(filters=alice)
    assert hits[0]["memory"] == "likes green tea"
    assert set(hits[0]) == MEMORY | {"score"}
    assert all(0.1 <= hit["score"] <= 1 for hit in hits)
    assert {hit["memory"] for hit in search()} >= {"likes green tea", "hates tea"}
    assert len(search(threshold=0.0)) == 3
    assert len(search(threshold=0.0, top_k=1)) == len(search(threshold=0.0, limit=1)) == 1
    assert search(threshold=1.0) == []
    assert [hit["memory"] for hit in search(threshold=0.0, categories=["drinks"])] == ["likes green tea"]
    assert [hit["memory"] for hit in search(threshold=0.0, metadata={"source": "chat"})] == ["likes green tea"]
    [bare] = search(filters=alice, top_k=1, fields=["memory"], explain=True)
    assert set(bare) == {"id", "memory", "score", "score_details"}
    assert set(bare["score_details"]) == {"semantic", "keyword", "bm25", "fused", "neighbours", "time", "rank"}
    # What clients send and what changes nothing here.
    assert search(rerank=True, keyword_search=True, latest_only=True, source="x", org_id="o", project_id="p")


def test_what_has_expired_is_shown_when_asked_for(client: TestClient) -> None:
    today = clock.today().isoformat()
    later = (clock.today() + timedelta(days=2)).isoformat()
    add(client, "likes tea", user_id="alice", expiration_date=today)

    def found(**body: Any) -> int:
        return len(client.post("/v3/memories/search/", json={"query": "tea", **body}).json()["results"])

    assert found() == 1
    assert found(reference_date=later) == 0
    assert found(reference_date=later, show_expired=True) == 1


def test_pages_are_linked(client: TestClient) -> None:
    add(client, *(f"memory {number}" for number in range(5)), user_id="alice")
    url, seen = "/v3/memories/?page=1&page_size=2&keep=me", []
    previous: list[str | None] = []
    while url:
        page = client.post(url, json={"filters": {"user_id": "alice"}}).json()
        assert page["count"] == 5
        seen += [memory["memory"] for memory in page["results"]]
        previous.append(page["previous"])
        assert page["next"] is None or "keep=me" in page["next"]
        url = page["next"]
    assert sorted(seen) == [f"memory {number}" for number in range(5)]
    assert previous[0] is None
    assert previous[1] is not None
    assert previous[1].startswith("/v3/memories/?")
    assert "page=1&page_size=2" in previous[1]
    assert client.post("/v3/memories/?page_size=5", json={}).json()["next"] is None
    beyond = client.post("/v3/memories/?page=99&page_size=2", json={}).json()
    assert beyond["results"] == []
    assert beyond["next"] is None
    assert "page=3" in beyond["previous"]


def test_a_list_is_narrowed(client: TestClient) -> None:
    add(client, "old tea", user_id="alice", timestamp="2020-05-31T23:00:00Z")
    add(client, "new Tea", user_id="alice", categories=["drinks"], metadata={"n": 1})
    add(client, "tennis", user_id="bob")
    assert listed(client, end_date="2020-05-31") == ["old tea"]
    assert sorted(listed(client, start_date="2020-06-01")) == ["new Tea", "tennis"]
    assert sorted(listed(client, keywords="TEA")) == ["new Tea", "old tea"]
    assert listed(client, categories=["drinks", "food"]) == ["new Tea"]
    assert listed(client, metadata={"n": 1}) == ["new Tea"]
    assert listed(client, top_k=1) == listed(client, limit=1) == ["tennis"]
    assert listed(client, filters={"user_id": "bob"}, keywords="tea") == []
    answer = client.post("/v3/memories/", json={"fields": ["memory", "nonsense"]}).json()
    assert all(set(memory) == {"id", "memory"} for memory in answer["results"])


@pytest.mark.parametrize(
    ("path", "body"),
    [("/v3/memories/", {}), ("/v3/memories/search/", {"query": "tea"}), ("/v2/memories/", {}), ("/v1/memories/", None)],
)
def test_fields_are_as_many_as_a_memory_can_have(client: TestClient, path: str, body: dict[str, Any] | None) -> None:
    add(client, "tea", user_id="alice")

    def asked(fields: list[str]) -> httpx.Response:
        if body is None:
            return client.get(path, params={"user_id": "alice", "fields": fields})
        return client.post(path, json={**body, "filters": {"user_id": "alice"}, "fields": fields})

    assert asked([*["nonsense"] * 49, "memory"]).status_code == 200
    assert "fields" in assert_error(asked([*["nonsense"] * 50, "memory"]), 400, "invalid_input")["detail"]


def test_an_update_changes_what_it_names_and_null_clears_the_expiry(client: TestClient) -> None:
    tomorrow = (clock.today() + timedelta(days=1)).isoformat()
    [made] = add(client, "likes tea", user_id="alice", metadata={"a": 1}, expiration_date=tomorrow)["results"]
    path = f"/v1/memories/{made['id']}/"
    after = client.put(path, json={"text": "likes coffee"}).json()
    assert (after["memory"], after["metadata"], after["expiration_date"]) == ("likes coffee", {"a": 1}, tomorrow)
    after = client.put(path, json={"metadata": {"b": 2}, "expiration_date": None}).json()
    assert (after["memory"], after["metadata"], after["expiration_date"]) == ("likes coffee", {"b": 2}, None)
    after = client.put(path, json={"timestamp": "2021-01-01T00:00:00Z"}).json()
    assert after["created_at"] == "2021-01-01T00:00:00+00:00"
    assert client.put(path, json={"data": "likes milk"}).json()["memory"] == "likes milk"
    assert client.put(path, json={"data": "likes wine", "text": "likes coffee"}).json()["memory"] == "likes coffee"
    steps = client.get(f"{path}history/").json()
    assert [step["event"] for step in steps][:2] == ["ADD", "UPDATE"]
    assert (steps[1]["old_memory"], steps[1]["new_memory"]) == ("likes tea", "likes coffee")
    assert {step["memory_id"] for step in steps} == {made["id"]}


def test_a_deleted_memory_is_gone_and_its_history_keeps_no_text(client: TestClient) -> None:
    [made] = add(client, "canary tea", user_id="alice")["results"]
    path = f"/v1/memories/{made['id']}/"
    assert client.delete(path).json() == {"message": "Memory deleted successfully!"}
    assert_error(client.get(path), 404, "not_found")
    assert_error(client.delete(path), 404, "not_found")
    history = client.get(f"{path}history/")
    assert history.json()[-1]["event"] == "DELETE"
    assert "canary" not in history.text
    assert "canary" not in client.get("/v1/events/").text
    assert client.post("/v3/memories/search/", json={"query": "canary tea"}).json()["results"] == []


def test_delete_all_deletes_a_scope_and_no_more(client: TestClient) -> None:
    add(client, "likes tea", "likes milk", user_id="alice")
    add(client, "likes cake", user_id="alice", app_id="shop")
    add(client, "likes wine", user_id="bob")
    assert client.delete("/v1/memories/?user_id=alice&app_id=shop&org_id=o&project_id=p").json()["count"] == 1
    assert client.delete("/v1/memories/?user_id=nobody").json()["count"] == 0
    assert client.delete("/v1/memories/?user_id=alice").json()["count"] == 2
    assert listed(client) == ["likes wine"]


def test_an_entity_of_any_name_is_listed_and_deleted(client: TestClient) -> None:
    add(client, "likes cake", user_id="other")
    for name in ("alice", "a/b", "a b?&#%", "../x", "ünïcode 🍵", "a/"):
        add(client, "likes tea", user_id=name)
        answer = client.get("/v1/entities/").json()
        assert (answer["count"], answer["total_users"], answer["next"]) == (2, 2, None)
        entity = next(one for one in answer["results"] if one["name"] == name)
        assert (entity["type"], entity["total_memories"]) == ("user", 1)
        assert_error(client.delete(f"/v2/entities/agent/{quote(name, safe='')}/"), 404)
        path = f"/v2/entities/user/{quote(name, safe='')}/"
        assert client.delete(path).json() == {"message": "Entity deleted successfully!"}
        assert_error(client.delete(path), 404, "not_found")
        assert [one["name"] for one in client.get("/v1/entities/").json()["results"]] == ["other"]
        assert listed(client) == ["likes cake"]
    assert client.delete("/v1/entities/user/other/").status_code == 200


def test_a_name_of_an_earlier_release_is_listed_and_deleted(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("a\nb", "b\n", "c\r\nd")
    with monkeypatch.context() as earlier:
        earlier.setattr(subjects, "check_new_name", lambda kind, name: None)
        for name in names:
            add(client, "likes tea", user_id=name)
    # It goes on as it was, and goes by each path.
    add(client, "likes milk", user_id=names[0])
    assert len(client.post("/v3/memories/", json={"filters": {"user_id": names[0]}}).json()["results"]) == 2
    assert [one["name"] for one in client.get("/v1/entities/").json()["results"]] == list(names)
    for name, path in zip(names, ("/v2/entities/user/{}/", "/entities/user/{}", "/v1/entities/user/{}/"), strict=True):
        assert client.delete(path.format(quote(name, safe=""))).status_code == 200
    assert client.get("/v1/entities/").json()["count"] == 0


def test_a_profile_is_not_enabled_whatever_the_name(client: TestClient) -> None:
    for name in ("alice", "a/b", "a b?&#%", "ünïcode 🍵", "a/profile"):
        answer = client.get(f"/v2/entities/user/{quote(name, safe='')}/profile/")
        assert (answer.status_code, answer.json()["status"]) == (200, "not_enabled")
    # A user whose name ends so is one to delete all the same.
    add(client, "likes tea", user_id="a/profile")
    assert client.delete("/v2/entities/user/a%2Fprofile/").status_code == 200


def test_events_tell_how_adds_went(client: TestClient) -> None:
    event_id = add(client, "likes tea", user_id="alice")["event_id"]
    event = client.get(f"/v1/event/{event_id}/").json()
    assert (event["event_type"], event["status"], event["error"]) == ("ADD", "SUCCEEDED", None)
    assert event["results"][0]["data"]["memory"] == "likes tea"
    assert event["latency"] >= 0
    add(client, "likes milk", user_id="alice")
    page = client.get("/v1/events/?page_size=1").json()
    assert page["count"] == 2
    assert page["results"][0]["id"] != event_id
    [older] = client.get(page["next"]).json()["results"]
    assert older["id"] == event_id


def test_a_key_bound_to_a_user_reaches_that_user_only(client: TestClient, make_client: MakeClient) -> None:
    [hers] = add(client, "likes tea", user_id="alice")["results"]
    [his] = add(client, "likes wine", user_id="bob")["results"]
    bound = make_client(role="agent", users=frozenset({"alice"}))
    assert listed(bound) == ["likes tea"]
    assert bound.get(f"/v1/memories/{hers['id']}/").status_code == 200
    assert_error(bound.get(f"/v1/memories/{his['id']}/"), 404)
    assert_error(bound.post("/v3/memories/", json={"filters": {"user_id": "bob"}}), 403)
    body = {"messages": [{"role": "user", "content": "x"}], "user_id": "bob", "infer": False}
    assert_error(bound.post("/v3/memories/add/", json=body), 403)
    assert [one["name"] for one in bound.get("/v1/entities/").json()["results"]] == ["alice"]


def test_keys_are_made_listed_and_revoked(client: TestClient, make_client: MakeClient, services: Services) -> None:
    body = {"role": "agent", "users": ["alice"], "connector": "crm", "expires_in": 30, "label": "for the bot"}
    answer = client.post("/v1/keys/", json=body)
    assert answer.status_code == 201
    made = answer.json()
    assert made["users"] == ["alice"]
    end = clock.now() + timedelta(days=30)
    assert made["expires_at"][:10] == end.date().isoformat()
    bot = make_client(key=made["api_key"])
    assert bot.get("/v1/ping/").status_code == 200
    assert_error(bot.post("/v1/keys/", json={"role": "reader"}), 403)
    keys = client.get("/v1/keys/")
    assert keys.json()["count"] == 2
    assert made["api_key"] not in keys.text
    assert client.delete(f"/v1/keys/{made['id']}/").json() == {"message": "Key revoked"}
    services.authenticator._cache.clear()
    assert_error(bot.get("/v1/ping/"), 401)
    [revoked] = [key for key in client.get("/v1/keys/").json()["results"] if key["id"] == made["id"]]
    assert revoked["revoked_at"]
    assert revoked["label"] == "for the bot"


def test_a_key_cannot_make_a_wider_one(make_client: MakeClient) -> None:
    operator = make_client(role="operator")
    assert_error(operator.post("/v1/keys/", json={"role": "reader"}), 403, "forbidden")
    narrow = operator.post("/v1/keys/", json={"permissions": ["settings:read"]})
    assert narrow.status_code == 201
    assert narrow.json()["permissions"] == ["settings:read"]
