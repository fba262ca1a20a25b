"""What cannot be understood is a clear 4xx in the one shape, never a server error, and nothing of it is stored."""

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.wiring import Services
from tests.integration.api.conftest import assert_error

pytestmark = pytest.mark.integration

ADD = "/v3/memories/add/"
SEARCH = "/v3/memories/search/"
LIST = "/v3/memories/"
JSON = {"Content-Type": "application/json"}
OLDER = ["/v1/memories/", "/v1/memories/search/", "/v2/memories/", "/v2/memories/search/"]


def an_add(**changes: Any) -> dict[str, Any]:
    """A good add, but for the changes."""
    return {"messages": [{"role": "user", "content": "tea"}], "user_id": "alice", "infer": False} | changes


def nested(levels: int) -> bytes:
    """A search with a filter of this many levels, written by hand since json.dumps gives up before the server does."""
    return b'{"query":"tea","filters":' + b'{"AND":[' * levels + b'{"user_id":"a"}' + b"]}" * levels + b"}"


BODY_PATHS: Any = [ADD, SEARCH, LIST, "/v1/keys/", *OLDER]

NO_OBJECTS: Any = [
    b"",
    b"   ",
    b"{",
    b"[]",
    b'"text"',
    b"null",
    b"12",
    b'{"a":1}{"b":2}',
    b'{"query":"tea","query":"coffee"}',
    b'{"metadata":{"a":1,"a":2}}',
    b'{"query":NaN}',
    b'{"query":Infinity}',
    b'{"query":"\\ud800"}',
    b'{"query":"\xff\xfe"}',
    b'{"query":"a\x00b"}',
    '{"query":"tea"}'.encode("utf-16"),
    b"\xef\xbb\xbf" + b'{"query":"tea"}',
    b'{"threshold":1' + b"0" * 5000 + b"}",
    b'{"a":' * 5000 + b"1" + b"}" * 5000,
    b"[" * 100_000,
]


def test_a_body_that_is_no_json_object(client: TestClient, subtests: pytest.Subtests) -> None:
    for path in BODY_PATHS:
        for content in NO_OBJECTS:
            with subtests.test(repr((path, content))[:80]):
                assert_error(client.post(path, content=content, headers=JSON), 400)


OTHER_TYPES: Any = [None, "text/plain", "application/x-www-form-urlencoded", "application", ";"]


def test_a_body_of_another_type(client: TestClient, subtests: pytest.Subtests) -> None:
    for content_type in OTHER_TYPES:
        with subtests.test(repr(content_type)[:80]):
            headers = {} if content_type is None else {"Content-Type": content_type}
            body = assert_error(client.post(SEARCH, content=b'{"query":"tea"}', headers=headers), 400)
            assert "Content-Type" in body["detail"]
            answer = client.post(
                SEARCH, content=b'{"query":"tea"}', headers={"Content-Type": "application/json; charset=utf-8"}
            )
            assert answer.status_code == 200


BAD_ADDS: Any = [
    ({"messages": []}, "messages"),
    ({"messages": None}, "messages"),
    ({"messages": "tea"}, "messages"),
    ({"messages": [{"content": "tea"}]}, "body.messages.0.role: Field required"),
    ({"messages": ["tea"]}, "body.messages.0: must be an object"),
    ({"messages": [{"role": "user", "content": "tea"}], "user_id": 7}, "body.user_id: must be a text"),
    ({"messages": [{"role": "user", "content": "tea"}], "metadata": []}, "body.metadata: must be an object"),
    ({"messages": [{"role": "user", "content": "tea"}], "infer": "yes"}, "body.infer: must be true or false"),
    ({"messages": [{"role": "user"}]}, "messages.0.content"),
    ({"messages": [{"role": "wizard", "content": "tea"}]}, "messages.0.role"),
    ({"messages": [{"role": "user", "content": ""}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": 7}]}, "messages.0.content"),
    ({"messages": [{"role": "system", "content": "be nice"}]}, "system"),
    ({"messages": [{"role": "system", "content": "a\x00b"}]}, "messages[0].content"),
    ({"messages": [{"role": "assistant", "content": None}]}, "messages.0.content"),
    ({"messages": [{"role": "assistant", "content": None, "tool_calls": []}]}, "messages.0.content"),
    ({"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": "c1"}]}]}, "calls of tools"),
    ({"messages": [{"role": "tool", "content": "", "tool_call_id": "c1"}]}, "calls of tools"),
    ({"messages": [{"role": "user", "content": "a\x00b"}]}, "messages[0].content"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        "messages[0].content[0]: only text can be remembered, and there is none beside it",
    ),
    ({"messages": [{"role": "user", "content": []}]}, "messages[0].content: must not be empty"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": [{"type": "text", "text": " "}]}]}, "messages[0].content: must not"),
    ({"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "c1"}]}]}, "calls of tools"),
    (
        {"messages": [{"role": "user", "content": {"type": "image_url", "image_url": {"url": "x"}}}]},
        "messages.0.content: must be a text or a list of text parts: only text can be remembered",
    ),
    ({"messages": [{"role": "user", "content": "tea", "name": "n" * 300}]}, "name"),
    ({"user_id": None}, "user_id, agent_id, app_id or run_id"),
    ({"user_id": ""}, "user_id"),
    ({"user_id": "*"}, "user_id"),
    ({"user_id": 12}, "user_id"),
    ({"user_id": "x" * 10_000}, "user_id"),
    ({"user_id": "a\x00b"}, "user_id"),
    ({"user_id": "a\nb"}, "user_id: must not hold line breaks"),
    ({"user_id": "a\tb"}, "user_id: must not hold line breaks"),
    ({"user_id": "a\x85b"}, "user_id: must not hold line breaks"),
    ({"app_id": "."}, "app_id: must not be '.' or '..'"),
    ({"run_id": ".."}, "run_id: must not be '.' or '..'"),
    ({"user_id": "..", "infer": True}, "user_id: must not be '.' or '..'"),
    ({"filters": {"user_id": "bob"}}, "user_id: stands twice"),
    ({"filters": {"created_at": "2026-01-01"}}, "filters"),
    ({"filters": {"user_id": ["alice"]}}, "filters"),
    ({"filters": {"AND": ["x"]}}, "filters"),
    ({"metadata": "x"}, "metadata"),
    ({"metadata": {"user_id": "x"}}, "reserved"),
    ({"metadata": {"a": 10**30}}, "metadata"),
    ({"metadata": {"a": 10**400}}, "body"),
    ({"metadata": {"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {"i": 1}}}}}}}}}}, "metadata"),
    ({"metadata": {"k" * 200: 1}}, "metadata"),
    ({"infer": "no"}, "infer"),
    ({"infer": 0}, "infer"),
    ({"categories": "tea"}, "categories"),
    ({"categories": [""]}, "categories[0]"),
    ({"categories": ["c"] * 51}, "categories"),
    ({"timestamp": "yesterday"}, "timestamp"),
    ({"timestamp": 10**300}, "timestamp"),
    ({"timestamp": -(10**18)}, "timestamp"),
    ({"timestamp": True}, "timestamp"),
    ({"expiration_date": "2020-01-01"}, "past"),
    ({"expiration_date": "tomorrow"}, "expiration_date"),
    ({"expiration_date": "2026-02-30"}, "expiration_date"),
    ({"expiration_date": 1}, "expiration_date"),
]


def test_an_add_that_cannot_be_understood(client: TestClient, subtests: pytest.Subtests) -> None:
    for changes, told in BAD_ADDS:
        with subtests.test(repr((changes, told))[:80]):
            body = assert_error(client.post(ADD, json=an_add(**changes)), 400)
            assert told in body["detail"]
            assert client.post(LIST, json={}).json()["count"] == 0


LARGE_ADDS: Any = [
    ({"messages": [{"role": "user", "content": "x" * 20_001}]}, "messages[0].content"),
    ({"messages": [{"role": "user", "content": "x"}] * 201}, "messages"),
]


def test_an_add_that_is_too_large(client: TestClient, subtests: pytest.Subtests) -> None:
    for changes, told in LARGE_ADDS:
        with subtests.test(repr((changes, told))[:80]):
            assert told in assert_error(client.post(ADD, json=an_add(**changes)), 413, "too_large")["detail"]


BAD_QUERIES: Any = [
    (SEARCH, {}, "query"),
    (SEARCH, {"query": ""}, "query"),
    (SEARCH, {"query": "  "}, "query"),
    (SEARCH, {"query": None}, "query"),
    (SEARCH, {"query": "x" * 4001}, "query"),
    (SEARCH, {"query": "a\x00b"}, "query"),
    (SEARCH, {"query": "tea", "user_id": "alice"}, "filters"),
    (LIST, {"agent_id": "a"}, "filters"),
    (SEARCH, {"query": "tea", "top_k": 0}, "top_k"),
    (SEARCH, {"query": "tea", "top_k": 1001}, "top_k"),
    (SEARCH, {"query": "tea", "top_k": "5"}, "top_k"),
    (SEARCH, {"query": "tea", "top_k": 10**300}, "top_k"),
    (SEARCH, {"query": "tea", "threshold": 1.5}, "threshold"),
    (SEARCH, {"query": "tea", "threshold": -1}, "threshold"),
    (SEARCH, {"query": "tea", "reference_date": "someday"}, "reference_date"),
    (SEARCH, {"query": "tea", "filters": {"owner": "alice"}}, "unknown key"),
    (SEARCH, {"query": "tea", "filters": {"user_id": {"like": "a"}}}, "user_id"),
    (SEARCH, {"query": "tea", "filters": "user_id"}, "filters"),
    (SEARCH, {"query": "tea", "filters": {"user_id": "x" * 10_000}}, "user_id"),
    (SEARCH, {"query": "tea", "filters": {"user_id": "a\x00"}}, "user_id"),
    (SEARCH, {"query": "tea", "filters": {"metadata": {"a": 10**30}}}, "metadata"),
    (SEARCH, {"query": "tea", "categories": ["a\x00"]}, "categories"),
    (LIST, {"filters": {"AND": []}}, "filters.AND"),
    (LIST, {"start_date": "soon"}, "created_at"),
    (LIST, {"end_date": "2026-13-01"}, "created_at"),
    (LIST, {"keywords": 7}, "keywords"),
    (f"{LIST}?page=0", {}, "page"),
    (f"{LIST}?page={10**30}", {}, "page"),
    (f"{LIST}?page_size=1001", {}, "page_size"),
    (f"{LIST}?page=one", {}, "page"),
    ("/v2/memories/search/", {"query": "tea", "user_id": ""}, "user_id"),
    ("/v2/memories/", {"user_id": "*"}, "user_id"),
]


def test_a_search_or_list_that_cannot_be_understood(client: TestClient, subtests: pytest.Subtests) -> None:
    for path, body, told in BAD_QUERIES:
        with subtests.test(repr((path, body, told))[:80]):
            assert told in assert_error(client.post(path, json=body), 400)["detail"]


LEVELS: Any = [50, 400, 5000, 100_000]


def test_a_filter_of_many_levels(client: TestClient, subtests: pytest.Subtests) -> None:
    for levels in LEVELS:
        with subtests.test(repr(levels)[:80]):
            assert_error(client.post(SEARCH, content=nested(levels), headers=JSON), 400)


def test_a_body_over_the_limit(client: TestClient, services: Services) -> None:
    limit = services.settings.server.body_limit
    assert_error(client.post(SEARCH, content=b"x" * (limit + 1), headers=JSON), 413, "too_large")
    assert_error(client.request("GET", "/v1/ping/", content=b"x" * (limit + 1)), 413, "too_large")
    assert_error(client.post("/nope", content=b"x" * (limit + 1)), 413, "too_large")

    def pieces() -> Any:
        for _ in range(limit // 65_536 + 2):
            yield b" " * 65_536

    # Without a Content-Length: counted as it arrives.
    assert_error(client.post(SEARCH, content=pieces(), headers=JSON), 413, "too_large")
    assert client.post(LIST, content=b" " * (limit - 2) + b"{}", headers=JSON).status_code == 200


BAD_IDS = [
    "x",
    "%00",
    "%2F",
    "..%2F..%2Fetc%2Fpasswd",
    "%ff%fe",
    "%F0%9F%8D%B5",
    "0190a1b2-3c4d-7e5f-8a9b-0c1d2e3f4a5b",
    "0190a1b23c4d7e5f8a9b0c1d2e3f4a5b",
    "{0190a1b2-3c4d-7e5f-8a9b-0c1d2e3f4a5b}",
    "urn:uuid:0190a1b2-3c4d-7e5f-8a9b-0c1d2e3f4a5b",
    "0190a1b2-3c4d-7e5f-8a9b-0c1d2e3f4a5b%0A",
    "1' OR '1'='1",
    "x" * 10_000,
]


def test_an_id_that_names_nothing_is_404(client: TestClient, subtests: pytest.Subtests) -> None:
    for bad in BAD_IDS:
        with subtests.test(repr(bad)[:80]):
            assert_error(client.get(f"/v1/memories/{bad}/"), 404)
            assert_error(client.get(f"/v1/memories/{bad}/history/"), 404)
            assert_error(client.put(f"/v1/memories/{bad}/", json={"text": "tea"}), 404)
            assert_error(client.delete(f"/v1/memories/{bad}/"), 404)
            assert_error(client.get(f"/v1/event/{bad}/"), 404)
            assert_error(client.delete(f"/v1/keys/{bad}/"), 404)
            assert_error(client.delete(f"/v2/entities/user/{bad}/"), 404)
            assert_error(client.delete(f"/v1/entities/{bad}/alice/"), 404)


NO_SCOPES: Any = [
    "",
    "?user_id=",
    "?user_id=*",
    "?filters=%7B%27user_id%27%3A+%27alice%27%7D",
    "?user_id=alice&filters=x",
    "?user_id=alice&metadata=%7B%27session%27%3A+%27s1%27%7D",
    "?user_id=alice&metadata=",
    "?user_id=alice&categories=food",
    "?user_id=alice&keywords=milk",
    "?user_id=alice&start_date=2026-01-01",
    "?user_id=alice&created_at=2026-01-01",
    "?user_id=alice&AND=x",
    "?org_id=a&project_id=b",
    "?user_id=%00",
    "?user_id=" + "x" * 10_000,
    "?userid=alice",
]


def test_a_deletion_without_a_scope_deletes_nothing(client: TestClient, subtests: pytest.Subtests) -> None:
    for query in NO_SCOPES:
        with subtests.test(repr(query)[:80]):
            assert client.post(ADD, json=an_add()).status_code == 200
            assert_error(client.delete(f"/v1/memories/{query}"), 400)
            assert_error(client.delete(f"/memories{query}"), 400)
            assert client.post(LIST, json={}).json()["count"] == 1


def test_a_deletion_without_a_scope_says_so(client: TestClient) -> None:
    for path in ("/v1/memories/", "/memories"):
        for query in ("", "?filters=%7B%27user_id%27%3A+%27alice%27%7D", "?user_id=alice&metadata=%7B%7D"):
            assert_error(client.delete(path + query), 400, "scope_required")
    told = assert_error(client.delete("/memories?user_id=alice&metadata=x&filters=y"), 400)["detail"]
    assert "filters, metadata: cannot narrow a deletion" in told
    assert "nothing was deleted" in told


BAD_UPDATES: Any = [
    {},
    {"text": ""},
    {"text": "a\x00b"},
    {"text": 7},
    {"metadata": []},
    {"metadata": {"id": 1}},
    {"expiration_date": "2020-01-01"},
    {"timestamp": "never"},
]


def test_an_update_that_cannot_be_understood_changes_nothing(client: TestClient, subtests: pytest.Subtests) -> None:
    for body in BAD_UPDATES:
        with subtests.test(repr(body)[:80]):
            [made] = client.post(ADD, json=an_add()).json()["results"]
            before = client.get(f"/v1/memories/{made['id']}/").json()
            assert_error(client.put(f"/v1/memories/{made['id']}/", json=body), 400)
            assert client.get(f"/v1/memories/{made['id']}/").json() == before


BAD_KEYS: Any = [
    {},
    {"role": "emperor"},
    {"role": "reader", "permissions": ["memory:read"]},
    {"permissions": []},
    {"permissions": ["everything"]},
    {"role": "reader", "users": []},
    {"role": "reader", "users": ["*"]},
    {"role": "reader", "users": ["a\x00"]},
    {"role": "reader", "expires_in": 0},
    {"role": "reader", "expires_in": 10**12},
    {"role": "reader", "expires_in": 1, "expires_at": "2099-01-01T00:00:00Z"},
    {"role": "reader", "expires_at": "2020-01-01T00:00:00Z"},
    {"role": "reader", "expires_at": "2099-01-01"},
    {"role": "reader", "connector": "a\x00"},
    {"role": "reader", "label": ""},
    # A misspelt restriction must not make a key without it.
    {"role": "reader", "user": "alice"},
]


def test_a_key_that_cannot_be_understood(client: TestClient, subtests: pytest.Subtests) -> None:
    for body in BAD_KEYS:
        with subtests.test(repr(body)[:80]):
            assert_error(client.post("/v1/keys/", json=body), 400)
            assert client.get("/v1/keys/").json()["count"] == 1


def test_an_idempotency_key_that_cannot_be_one(client: TestClient) -> None:
    for bad in ("", "k" * 256):
        assert_error(client.post(ADD, json=an_add(), headers={"Idempotency-Key": bad}), 400)


def test_errors_repeat_no_content(client: TestClient) -> None:
    canary = "canary-7f3a"
    for body in (
        an_add(metadata={canary: {canary: [canary] * 300}}),
        an_add(user_id=canary * 100),
        an_add(timestamp=canary),
        an_add(expiration_date=canary),
        an_add(messages=[{"role": canary, "content": canary}]),
        an_add(messages=[{"role": "user", "content": {canary: canary}}]),
    ):
        answer = client.post(ADD, json=body)
        assert_error(answer, 400)
        assert canary not in answer.text
    answer = client.post(SEARCH, content=json.dumps({"query": canary})[:-2].encode(), headers=JSON)
    assert_error(answer, 400)
    assert canary not in answer.text
