"""Bodies that are large in what they hold: refused at the cost of their first fault, and not where everybody waits."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import orjson
import pytest
from fastapi._compat import v2 as fastapi_errors
from fastapi.testclient import TestClient

from service.errors import TooLarge
from service.mcp.tools import TOOLS
from service.strict_json import refuse_many
from tests.integration.api.conftest import assert_error

pytestmark = pytest.mark.integration

SEARCH, ADD = "/v3/memories/search/", "/v3/memories/add/"
WRONG = {"type": 1}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (SEARCH, {"query": "x", "fields": [1] * 100_000}),
        (SEARCH, {"query": "x", "categories": [1] * 100_000}),
        (SEARCH, {"query": "x", "filters": [1] * 100_000}),
        (ADD, {"user_id": "alice", "messages": [{}] * 100_000}),
        (ADD, {"user_id": "alice", "messages": [{"role": "user", "content": [WRONG] * 900}] * 100}),
        ("/v1/keys/", {"role": "reader", "users": [1] * 100_000}),
        ("/v1/holds/", {"name": "x", "reason": "x", "memory_ids": [1] * 100_000}),
        ("/v1/reviews/approve/", {"ids": [1] * 100_000}),
        ("/tools/store_interaction_summary", {"summary": "x", "channel": "x", "labels": [1] * 100_000}),
    ],
)
def test_what_is_wrong_many_times_makes_few_errors(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any]
) -> None:
    made: list[int] = []
    real = fastapi_errors._regenerate_error_with_loc

    def counting(*, errors: Sequence[Any], loc_prefix: tuple[str | int, ...]) -> list[dict[str, Any]]:
        made.append(len(errors))
        return real(errors=errors, loc_prefix=loc_prefix)

    monkeypatch.setattr(fastapi_errors, "_regenerate_error_with_loc", counting)
    assert len(assert_error(client.post(path, json=body), 400)["detail"]) < 500
    assert made
    assert max(made) < 1_000


def test_a_body_of_too_many_values_is_refused(client: TestClient) -> None:
    many = {"query": "x", "filters": {"metadata": {"a": [{}] * 300_000}}}
    assert "250000 values" in assert_error(client.post(SEARCH, json=many), 413, "too_large")["detail"]
    fewer = {"query": "x", "filters": {"metadata": {"a": [{}] * 30_000}}}
    assert_error(client.post(SEARCH, json=fewer), 400)


def test_a_large_body_that_is_meant_is_taken(client: TestClient) -> None:
    messages = [{"role": "user", "content": f"Note {number}: {'tea ' * 200}"} for number in range(120)]
    answer = client.post(ADD, json={"messages": messages, "user_id": "alice", "infer": False})
    assert answer.status_code == 200
    assert len(answer.json()["results"]) == 120


def test_a_body_of_too_many_values_is_not_read(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def counting(raw: bytes) -> Any:
        read.append(len(raw))
        return real(raw)

    real = orjson.loads
    monkeypatch.setattr("service.strict_json.orjson.loads", counting)
    body = b'{"query": "x", "filters": [' + b"[]," * 1_000_000 + b"1]}"
    assert_error(client.post(SEARCH, content=body, headers={"content-type": "application/json"}), 413, "too_large")
    assert read == []


@pytest.mark.parametrize(
    "value",
    [
        [0] * 10,
        {"a": [[0, 1], {"b": {}, "c": [{}]}]},
        [[[]]] * 3,
        {str(n): [] for n in range(10)},
        ["[,{", '"', "\\", '\\",[', "é,"],
        {',"[{\\': ["]", "}"]},
    ],
    ids=repr,
)
@pytest.mark.parametrize("indent", [None, 1])
def test_values_are_counted_at_every_depth_and_not_in_texts(value: Any, indent: int | None) -> None:
    count = _values(value)
    for ascii_only in (True, False):
        raw = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
        for text in (raw, raw.encode()):
            refuse_many(text, "body", count)
            with pytest.raises(TooLarge, match=f"body: has more than {count - 1} values"):
                refuse_many(text, "body", count - 1)


def _values(value: Any) -> int:
    inside = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return len(inside) + sum(_values(one) for one in inside)


def _lists(schema: Any, known: dict[str, Any], seen: frozenset[str] = frozenset()) -> Iterator[tuple[str, bool]]:
    """The lists that a schema of the OpenAPI document takes, each with whether it has a bound."""
    if not isinstance(schema, dict):
        return
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    if name and name not in seen:
        yield from _lists(known[name], known, seen | {name})
    if schema.get("type") == "array":
        yield str(schema.get("title") or schema.get("description")), "maxItems" in schema
    inside = [schema.get("items"), *schema.get("properties", {}).values()]
    for part in (*inside, *(one for kind in ("anyOf", "oneOf", "allOf") for one in schema.get(kind, ()))):
        yield from _lists(part, known, seen)


def test_every_list_of_a_tool_has_a_bound() -> None:
    schemas = {name: tool.input_schema for name, tool in TOOLS.items()}
    found = {(name, *one) for name, schema in schemas.items() for one in _lists(schema, schema.get("$defs", {}))}
    assert len(found) >= 3
    assert [one for one in found if not one[2]] == []


def test_every_list_of_a_body_has_a_bound(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    known = document["components"]["schemas"]
    found: dict[str, bool] = {}
    for path, item in document["paths"].items():
        for method, operation in item.items():
            for content in operation.get("requestBody", {}).get("content", {}).values():
                found |= {f"{method} {path} {name}": has for name, has in _lists(content.get("schema"), known)}
    assert len(found) > 20
    assert [name for name, has in found.items() if not has] == []
