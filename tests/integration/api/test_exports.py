"""Exports and imports over HTTP: the platform's calls in a schema's shape, and the download as JSON lines."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from service.portability import exports
from service.scope import TenantId
from service.wiring import Services
from tests.conftest import principal_of
from tests.integration.api.conftest import MakeClient, assert_error

pytestmark = pytest.mark.integration

SCHEMA = {
    "type": "object",
    "$defs": {
        "Fact": {
            "properties": {
                "memory": {"type": "string"},
                "mood": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                "created_at": {"type": "string"},
            }
        }
    },
    "properties": {
        "facts": {"type": "array", "items": {"$ref": "#/$defs/Fact"}},
        "texts": {"type": "array", "items": {"type": "string"}},
        "mood": {"type": "string"},
        "unknown": {"type": "integer"},
    },
}


@pytest.fixture
def told(client: TestClient) -> TestClient:
    """A client whose tenant has memories."""
    for text, mood in (("tea", "calm"), ("coffee", "awake")):
        body = {
            "messages": [{"role": "user", "content": text}],
            "user_id": "alice",
            "metadata": {"mood": mood},
            "infer": False,
        }
        assert client.post("/v3/memories/add/", json=body).status_code == 200
    return client


@pytest.mark.parametrize("form", ["object", "string"])
def test_an_export_comes_in_the_shape_of_its_schema(told: TestClient, form: str) -> None:
    schema = SCHEMA if form == "object" else json.dumps(SCHEMA)
    made = told.post("/v1/exports/", json={"schema": schema, "filters": {"user_id": "alice"}})
    assert made.status_code == 201
    assert set(made.json()) == {"message", "id"}
    for body in ({"memory_export_id": made.json()["id"]}, {"filters": {"user_id": "alice"}}):
        answer = told.post("/v1/exports/get/", json=body)
        assert answer.status_code == 200
        export = answer.json()
        assert [(fact["memory"], fact["mood"]) for fact in export["facts"]] == [("tea", "calm"), ("coffee", "awake")]
        assert (export["texts"], export["mood"], export["unknown"]) == (["tea", "coffee"], "awake", None)


def test_without_a_schema_the_memories_come_as_they_are(told: TestClient) -> None:
    made = told.post("/v1/exports/", json={"user_id": "alice"}).json()
    export = told.post("/v1/exports/get/", json={"memory_export_id": made["id"]}).json()
    assert [memory["memory"] for memory in export["memories"]] == ["tea", "coffee"]
    assert export["memories"][0]["metadata"] == {"mood": "calm"}


@pytest.mark.parametrize("body", [{"memory_export_id": "nonsense"}, {"filters": {"user_id": "bob"}}, {}])
def test_an_export_that_nobody_asked_for_is_not_found(told: TestClient, body: dict[str, Any]) -> None:
    refused = assert_error(told.post("/v1/exports/get/", json=body), 404, "not_found")
    assert ("filters that it was asked for with" in refused["detail"]) is ("memory_export_id" not in body)


@pytest.mark.parametrize("schema", ["not json", [1], 3, {"properties": 1}])
def test_a_schema_that_is_none_is_refused(told: TestClient, schema: Any) -> None:
    assert "schema" in assert_error(told.post("/v1/exports/", json={"schema": schema}), 400)["detail"]


def test_the_download_can_be_imported_by_another_tenant(
    told: TestClient, make_client: MakeClient, services: Services
) -> None:
    export_id = told.post("/v1/exports/", json={}).json()["id"]
    answer = told.get(f"/v1/exports/{export_id}/download/")
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["type"] for line in lines] == [
        *("export", "subject", "memory", "history", "memory", "history", "end"),
    ]
    rival = TenantId(services.installation.tenants.create("rival").id)
    other = make_client(key=principal_of(services, rival)[1])
    assert_error(other.get(f"/v1/exports/{export_id}/download/"), 404, "not_found")
    send = {"content": answer.content, "headers": {"content-type": "application/x-ndjson"}}
    dry = other.post("/v1/imports/?dry_run=true", **send).json()
    assert (dry["imported"], dry["dry_run"]) == (2, True)
    assert other.post("/v1/imports/", **send).json()["imported"] == 2
    assert other.post("/v1/imports/", **send).json()["known"] == 2
    listed = other.post("/v3/memories/", json={"filters": {"user_id": "alice"}}).json()
    assert {one["id"] for one in listed["results"]} == {line["id"] for line in lines if line["type"] == "memory"}


def test_a_line_that_cannot_be_understood_is_named(client: TestClient) -> None:
    for content, where in ((b"{}", "line 1"), (b'{"type":"memory"}', "line 1"), (b'{"type":"end"}\nx', "line 2")):
        answer = client.post("/v1/imports/", content=content, headers={"content-type": "application/x-ndjson"})
        assert where in assert_error(answer, 400)["detail"]


def test_lines_of_an_export_that_was_cut_off_are_refused(told: TestClient) -> None:
    export_id = told.post("/v1/exports/", json={}).json()["id"]
    lines = told.get(f"/v1/exports/{export_id}/download/").content.splitlines()
    for path in ("/v1/imports/", "/v1/imports/?dry_run=true"):
        answer = told.post(path, content=b"\n".join(lines[:-1]))
        assert "cut off" in assert_error(answer, 400)["detail"]
    # In several requests, without the first line.
    for part in (lines[1:4], lines[4:]):
        assert told.post("/v1/imports/", content=b"\n".join(part)).json()["refused"] == 0


@pytest.mark.parametrize("role", ["reader", "agent", "operator"])
def test_a_key_without_the_permission_is_refused(make_client: MakeClient, role: str) -> None:
    client = make_client(role=role)
    assert_error(client.post("/v1/exports/", json={}), 403)
    assert_error(client.post("/v1/exports/get/", json={}), 403)
    assert_error(client.post("/v1/imports/", content=b""), 403)


def test_references_cannot_multiply_what_a_schema_comes_to(told: TestClient) -> None:
    twelve = {f"p{number}": {"$ref": "#/d/A"} for number in range(12)}
    endless = {"d": {"A": {"properties": twelve}}, "properties": {"r": {"$ref": "#/d/A"}}}
    levels = {f"L{level}": _level(f"#/d/L{level + 1}") for level in range(8)} | {"L8": {"properties": {"memory": {}}}}
    without_an_end = {"d": levels, "properties": {"r": {"$ref": "#/d/L0"}}}
    of_each = {
        "d": {"E": {"properties": {f"p{number}": {"type": "string"} for number in range(200)}}},
        "properties": {name: {"type": "array", "items": {"$ref": "#/d/E"}} for name in ("a", "b")},
    }
    for schema, said in ((endless, "10000 properties"), (without_an_end, "10000"), (of_each, "250 properties of each")):
        answer = told.post("/v1/exports/", json={"schema": schema, "user_id": "alice"})
        assert said in assert_error(answer, 400, "invalid_input")["detail"]


def test_a_schema_that_contains_itself_ends(told: TestClient) -> None:
    person = {
        "properties": {
            "mood": {"type": "string"},
            "mother": {"anyOf": [{"$ref": "#/d/P"}, {"type": "null"}]},
            "father": {"anyOf": [{"$ref": "#/d/P"}, {"type": "null"}]},
        }
    }
    schema = {"d": {"P": person}, "properties": {"person": {"$ref": "#/d/P"}, "loop": {"$ref": "#/properties/loop"}}}
    made = told.post("/v1/exports/", json={"schema": schema, "user_id": "alice"})
    assert made.status_code == 201, made.text
    export = told.post("/v1/exports/get/", json={"memory_export_id": made.json()["id"]}).json()
    assert export["loop"] is None
    at, deep = export["person"], 0
    while at["mother"] is not None:
        assert at["mood"] == "awake"
        at, deep = at["mother"], deep + 1
    assert deep == 7


def test_a_long_schema_is_refused_in_either_form(told: TestClient) -> None:
    schema = {"properties": {f"property_{number}": {"type": "string"} for number in range(2_000)}}
    for form in (schema, json.dumps(schema)):
        answer = told.post("/v1/exports/", json={"schema": form})
        assert "50000 characters" in assert_error(answer, 400, "invalid_input")["detail"]


_HUGE = 2**64


def _nested(depth: int, key: str) -> Any:
    value: Any = {}
    for _ in range(depth):
        value = {key: value}
    return value


def test_what_cannot_be_written_down_is_refused(told: TestClient) -> None:
    for filters in ({"metadata": {"n": _HUGE}}, _nested(300, "NOT"), _nested(254, "metadata")):
        for path in ("/v1/exports/get/", "/v1/exports/"):
            answer = told.post(path, json={"filters": filters})
            assert "filters" in assert_error(answer, 400, "invalid_input")["detail"]
    # About as deep as can be written: one level more or less, it is kept or refused.
    deepest = [told.post("/v1/exports/", json={"schema": _nested(depth, "properties")}) for depth in range(250, 257)]
    assert {answer.status_code for answer in deepest} == {201, 400}
    for schema in ({"maximum": _HUGE}, _nested(300, "properties")):
        answer = told.post("/v1/exports/", json={"schema": schema})
        assert "schema" in assert_error(answer, 400, "invalid_input")["detail"]


def _level(below: str) -> dict[str, Any]:
    return {"properties": {f"p{number}": {"$ref": below} for number in range(5)}}


@pytest.mark.parametrize(
    "filters", [{"user_id": "alice"}, {"user_id": "alice", "metadata": {"mood": {"contains": "a"}}}]
)
@pytest.mark.parametrize(("bound", "most"), [("_MOST_MEMORIES", 1), ("_MOST_CHARS", 30)])
def test_what_is_too_much_for_one_answer_is_refused_and_streams(
    told: TestClient, monkeypatch: pytest.MonkeyPatch, filters: Any, bound: str, most: int
) -> None:
    export_id = told.post("/v1/exports/", json={"filters": filters}).json()["id"]
    body = {"memory_export_id": export_id}
    assert len(told.post("/v1/exports/get/", json=body).json()["memories"]) == 2
    monkeypatch.setattr(exports, bound, most)
    assert "/download/" in assert_error(told.post("/v1/exports/get/", json=body), 413, "too_large")["detail"]
    lines = told.get(f"/v1/exports/{export_id}/download/").text.splitlines()
    assert [json.loads(line)["type"] for line in lines].count("memory") == 2


def test_too_many_memories_are_refused_before_one_is_opened(
    told: TestClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = told.post("/v1/exports/", json={"user_id": "alice"}).json()
    monkeypatch.setattr(exports, "_MOST_MEMORIES", 1)
    monkeypatch.setattr(type(services.installation.record), "stream", _nothing_is_read)
    assert_error(told.post("/v1/exports/get/", json={"memory_export_id": made["id"]}), 413, "too_large")


def _nothing_is_read(*_args: Any, **_kwargs: Any) -> Any:
    raise AssertionError("memories were read")
