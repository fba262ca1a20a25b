"""Fixtures of the tests that read the trail: the app on real services, and the trail as it stands in the database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import psycopg
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from psycopg.rows import dict_row

from service.auth.keys import Grant
from service.main import create_app
from service.policy.table import ROLES
from service.scope import TenantId
from service.wiring import Services
from tests.conftest import Postgres

MakeClient = Callable[..., TestClient]
Rows = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def app(services: Services) -> FastAPI:
    """The app on open services."""
    return create_app(services)


@pytest.fixture
def make_client(services: Services, tenant: TenantId, app: FastAPI) -> Iterator[MakeClient]:
    """Make clients with keys of the tenant."""
    with ExitStack() as stack:

        def make(role: str = "admin", *, tenant_id: TenantId = tenant, **grant: Any) -> TestClient:
            permissions = grant.pop("permissions", ROLES[role])
            minted = services.keys.mint_for_installation(tenant_id, Grant(frozenset(permissions), **grant))
            client = TestClient(app, raise_server_exceptions=False)
            client.headers["Authorization"] = f"Token {minted.secret}"
            client.headers["X-Key"] = str(minted.id)
            return stack.enter_context(client)

        yield make


@pytest.fixture
def client(make_client: MakeClient) -> TestClient:
    """A client with an admin key."""
    return make_client()


@pytest.fixture
def rows(database: Postgres) -> Rows:
    """Read the trail as a superuser, in the order in which it was written."""

    def read(event: str | None = None) -> list[dict[str, Any]]:
        with psycopg.connect(database.admin, row_factory=dict_row) as connection:
            found = connection.execute("SELECT * FROM audit ORDER BY seq").fetchall()
        return [row for row in found if event in (None, row["event"])]

    return read


def add(client: TestClient, *texts: str, user: str | None = "alice", **more: Any) -> list[str]:
    """Add memories verbatim and return their ids."""
    body: dict[str, Any] = {"messages": [{"role": "user", "content": text} for text in texts], "infer": False} | more
    if user is not None:
        body["user_id"] = user
    answer = client.post("/v3/memories/add/", json=body)
    assert answer.status_code == 200, answer.text
    return [result["id"] for result in answer.json()["results"]]


def search(client: TestClient, query: str, *, user: str | None = "alice", **headers: str) -> list[str]:
    """Search and return the ids of the hits."""
    body: dict[str, Any] = {"query": query, "threshold": 0.0}
    if user is not None:
        body["filters"] = {"user_id": user}
    answer = client.post("/v3/memories/search/", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return [hit["id"] for hit in answer.json()["results"]]


def audit(client: TestClient, **parameters: Any) -> list[dict[str, Any]]:
    """Read the trail with filters and return the rows of the first page."""
    answer = client.get("/v1/audit/", params=parameters)
    assert answer.status_code == 200, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check that an answer is a refusal and return its body."""
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    body: dict[str, Any] = answer.json()
    return body
