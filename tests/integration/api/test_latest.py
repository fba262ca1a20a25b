"""`latest_only` over HTTP: in searches and lists of this and of older clients, with all else as it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from service.scope import Scope, TenantId, service_principal
from service.storage.superseding import supersede
from service.wiring import Services

pytestmark = pytest.mark.integration


def first_superseded(client: TestClient, services: Services, tenant: TenantId, texts: Sequence[str]) -> UUID:
    """Add texts of alice, the second of which supersedes the first; return the id of the first."""
    messages = [{"role": "user", "content": text} for text in texts]
    body = {"messages": messages, "user_id": "alice", "infer": False}
    older, newer, *_ = (UUID(one["id"]) for one in client.post("/v3/memories/add/", json=body).json()["results"])
    scope = Scope.of(service_principal(tenant))
    with services.installation.database.transaction(scope) as connection:
        assert supersede(connection, scope, {newer: [older]}) == {newer: [older]}
    return older


def test_searches_and_lists_leave_out_what_is_superseded(
    client: TestClient, services: Services, tenant: TenantId
) -> None:
    texts = ["Alice lives in Rome", "Alice lives in Oslo", "Alice likes tea"]
    rome = first_superseded(client, services, tenant, texts)
    query = {"query": "where does Alice live?", "threshold": 0}
    narrowed = {"filters": {"user_id": "alice"}}
    asks: list[Callable[..., object]] = [
        lambda **more: client.post("/v3/memories/search/", json=query | narrowed | more).json()["results"],
        lambda **more: client.post("/v3/memories/", json=narrowed | more).json()["results"],
        lambda **more: client.post("/v2/memories/", json=narrowed | more).json(),
        lambda **more: client.post("/v1/memories/search/", json=query | {"user_id": "alice"} | more).json(),
    ]
    for ask in asks:
        for all_of_them in ({}, {"latest_only": False}, {"latest_only": None}):
            assert {one["memory"] for one in ask(**all_of_them)} == set(texts)  # type: ignore[attr-defined]
        assert {one["memory"] for one in ask(latest_only=True)} == set(texts[1:])  # type: ignore[attr-defined]
    assert client.get(f"/v1/memories/{rome}/").json()["memory"] == texts[0]
    assert client.post("/v3/memories/", json=narrowed | {"latest_only": "x"}).status_code == 400


def test_a_context_has_what_is_so_now_unless_the_past_is_asked_for(
    client: TestClient, services: Services, tenant: TenantId
) -> None:
    texts = ["Alice lives in Rome", "Alice lives in Oslo"]
    first_superseded(client, services, tenant, texts)

    def context(query: str) -> set[str]:
        answer = client.post("/tools/get_user_context", json={"user_id": "alice", "query": query})
        return set(answer.json()["context_snippets"])

    assert context("where does Alice live?") == {texts[1]}
    assert context("where did Alice live before she moved?") == set(texts)


def test_a_time_is_counted_from_the_day_of_reference(client: TestClient) -> None:
    for text, moment in (("I moved to Oslo", "2025-03-10T12:00:00Z"), ("I moved to Rome", "2025-06-20T12:00:00Z")):
        body = {"messages": [{"role": "user", "content": text}], "user_id": "ann", "infer": False}
        answer = client.post("/v3/memories/add/", json=body | {"timestamp": moment})
        assert answer.status_code == 200, answer.text
    for day, city in (("2025-03-18", "Oslo"), ("2025-06-27", "Rome")):
        body = {"query": "Where did she move last week?", "filters": {"user_id": "ann"}, "reference_date": day}
        assert client.post("/v3/memories/search/", json=body).json()["results"][0]["memory"] == f"I moved to {city}"
