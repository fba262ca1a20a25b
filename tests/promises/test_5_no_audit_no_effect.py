"""No audit row, no effect."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from service.wiring import Services
from tests.conftest import Postgres
from tests.process.memvault import add
from tests.promises.faces import Connect

pytestmark = pytest.mark.promises

#: Every table that an action of a key may change. When a key was used last is not an effect of what it asked for.
TABLES = ("memories", "history", "messages", "events", "idempotency", "subjects", "outbox", "key_index", "audit")


def contents(database: Postgres) -> dict[str, list[Any]]:
    """Return every row of these tables."""
    with psycopg.connect(database.admin) as connection:
        return {
            table: sorted(
                map(str, connection.execute(psycopg.sql.SQL("SELECT * FROM {}").format(psycopg.sql.Identifier(table))))
            )
            for table in TABLES
        }


def test_no_audit_row_no_effect(services: Services, database: Postgres, connect: Connect) -> None:
    """No audit row, no effect: when the audit row cannot be written, the write rolls back and the read is refused with
    503.
    """
    client, reader = connect(services), connect(services, role="reader")
    first, second = add(client, "I love Italian food", "I live in Rome")
    event_id = client.get("/v1/events/").json()["results"][0]["id"]
    services.indexing.drain()
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute("REVOKE INSERT ON audit FROM memvault_app")
    before = contents(database)
    message = {"role": "user", "content": "I moved to Oslo"}
    body = {"messages": [message], "user_id": "alice", "infer": False}
    calls: list[tuple[str, str, Any]] = [
        ("POST", "/v3/memories/add/", body),
        ("POST", "/v3/memories/search/", {"query": "food", "filters": {"user_id": "alice"}}),
        ("POST", "/v3/memories/", {"filters": {"user_id": "alice"}}),
        ("GET", f"/v1/memories/{first}/", None),
        ("GET", f"/v1/memories/{first}/history/", None),
        ("PUT", f"/v1/memories/{first}/", {"text": "I love French food"}),
        ("DELETE", f"/v1/memories/{second}/", None),
        ("DELETE", "/v1/memories/?user_id=alice", None),
        ("DELETE", "/v2/entities/user/alice/", None),
        ("PUT", "/v1/batch/", {"memories": [{"memory_id": first, "text": "I love French food"}]}),
        ("DELETE", "/v1/batch/", {"memories": [{"memory_id": second}]}),
        ("POST", "/memories", body),
        ("POST", "/search", {"query": "food", "filters": {"user_id": "alice"}}),
        ("GET", "/memories?user_id=alice", None),
        ("GET", f"/memories/{first}", None),
        ("GET", f"/memories/{first}/history", None),
        ("PUT", f"/memories/{first}", {"text": "I love French food"}),
        ("DELETE", f"/memories/{second}", None),
        ("DELETE", "/memories?user_id=alice", None),
        ("DELETE", "/entities/user/alice", None),
        ("GET", "/entities", None),
        ("GET", "/v1/entities/", None),
        ("GET", "/v1/events/", None),
        ("GET", f"/v1/event/{event_id}/", None),
        ("POST", "/v1/keys/", {"role": "reader"}),
        ("GET", "/v1/keys/", None),
    ]
    for method, path, sent in calls:
        answer = client.request(method, path, json=sent)
        assert answer.status_code == 503, (method, path, answer.text)
        assert answer.headers["Retry-After"]
        assert "Rome" not in answer.text
        assert "Italian" not in answer.text
    # A refusal that cannot be recorded is not answered as one either.
    assert reader.post("/v3/memories/add/", json=body).status_code == 503
    assert contents(database) == before
    with psycopg.connect(database.admin, autocommit=True) as connection:
        connection.execute("GRANT INSERT ON audit TO memvault_app")
    assert client.get(f"/v1/memories/{first}/").json()["memory"] == "I love Italian food"
    found = client.post("/v3/memories/search/", json={"query": "Rome", "filters": {"user_id": "alice"}}).json()
    assert {hit["id"] for hit in found["results"]} <= {first, second}
    assert contents(database) != before
