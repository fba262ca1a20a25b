"""`latest_only` over HTTP: in searches and lists of this and of older clients, with all else as it was."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import pytest
from fastapi.testclient import TestClient

from service.scope import Scope, TenantId, service_principal
from service.storage.superseding import supersede
from service.wiring import Services

pytestmark = pytest.mark.integration


def test_searches_and_lists_leave_out_what_is_superseded(
    client: TestClient, services: Services, tenant: TenantId
) -> None:
    texts = ["Alice lives in Rome", "Alice lives in Oslo", "Alice likes tea"]
    messages = [{"role": "user", "content": text} for text in texts]
    body = {"messages": messages, "user_id": "alice", "infer": False}
    rome, oslo, _ = (UUID(one["id"]) for one in client.post("/v3/memories/add/", json=body).json()["results"])
    scope = Scope.of(service_principal(tenant))
    with services.installation.database.transaction(scope) as connection:
        assert supersede(connection, scope, {oslo: [rome]}) == {oslo: [rome]}
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
