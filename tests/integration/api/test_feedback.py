"""Feedback: one word a key and memory, sealed, and gone with the memory."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient

from tests.conftest import Postgres
from tests.integration.api.conftest import MakeClient, assert_error

pytestmark = pytest.mark.integration

CANARY = "bilbycanary"


def add(client: TestClient, user: str = "alice", text: str = "likes tea") -> str:
    """Add a memory and return its id."""
    body = {"messages": [{"role": "user", "content": text}], "user_id": user, "infer": False}
    found: str = client.post("/v3/memories/add/", json=body).json()["results"][0]["id"]
    return found


def rows(database: Postgres) -> list[tuple[Any, ...]]:
    """What is kept."""
    with psycopg.connect(database.admin) as connection:
        return connection.execute("SELECT verdict, reason::text FROM feedback ORDER BY created_at").fetchall()


def test_the_last_word_of_a_key_counts_and_null_takes_it_back(client: TestClient, database: Postgres) -> None:
    memory = add(client)
    first = client.post("/v1/feedback/", json={"memory_id": memory, "feedback": "positive", "feedback_reason": CANARY})
    assert first.json() | {"id": ""} == {"id": "", "feedback": "POSITIVE", "feedback_reason": CANARY}
    ((verdict, reason),) = rows(database)
    assert verdict == "POSITIVE"
    assert CANARY not in reason
    assert CANARY.encode().hex() not in reason
    again = client.post("/v1/feedback/", json={"memory_id": memory, "feedback": "VERY_NEGATIVE"}).json()
    assert again["id"] == first.json()["id"]
    assert rows(database) == [("VERY_NEGATIVE", None)]
    assert client.post("/v1/feedback/", json={"memory_id": memory, "feedback": None}).json()["feedback"] is None
    assert rows(database) == [(None, None)]


def test_each_key_has_its_own(client: TestClient, make_client: MakeClient, database: Postgres) -> None:
    memory = add(client)
    for who, word in ((client, "POSITIVE"), (make_client(role="agent"), "NEGATIVE")):
        assert who.post("/v1/feedback/", json={"memory_id": memory, "feedback": word}).status_code == 200
    assert [row[0] for row in rows(database)] == ["POSITIVE", "NEGATIVE"]


def test_what_the_key_does_not_reach_is_not_there(
    client: TestClient, make_client: MakeClient, database: Postgres
) -> None:
    memory = add(client, "bob")
    bound = make_client(role="agent", users=frozenset({"alice"}))
    for who, wanted in ((bound, memory), (client, "no-id"), (client, "0190a1b2-3c4d-7e5f-8a9b-0c1d2e3f4a5b")):
        assert_error(who.post("/v1/feedback/", json={"memory_id": wanted, "feedback": "POSITIVE"}), 404, "not_found")
    reader = make_client(role="reader")
    assert_error(reader.post("/v1/feedback/", json={"memory_id": memory}), 403, "forbidden")
    assert rows(database) == []


def test_bad_feedback_is_refused(client: TestClient) -> None:
    memory = add(client)
    for body in (
        {"memory_id": memory, "feedback": "MEH"},
        {"memory_id": memory, "feedback": 1},
        {"memory_id": memory, "feedback": "POSITIVE", "feedback_reason": "x" * 2001},
        {"memory_id": memory, "feedback": "POSITIVE", "feedback_reason": "\x00"},
        {"feedback": "POSITIVE"},
    ):
        assert_error(client.post("/v1/feedback/", json=body), 400, "invalid_input")


def test_a_word_that_is_none_is_answered_with_those_that_are(client: TestClient) -> None:
    answer = client.post("/v1/feedback/", json={"memory_id": add(client), "feedback": "MEH"}).json()
    assert "'POSITIVE', 'NEGATIVE' or 'VERY_NEGATIVE'" in answer["detail"]
    assert "MEH" not in answer["detail"]


@pytest.mark.parametrize("how", ["delete", "delete_all", "entity"])
def test_feedback_leaves_with_its_memory(how: str, client: TestClient, database: Postgres) -> None:
    memory = add(client)
    client.post("/v1/feedback/", json={"memory_id": memory, "feedback": "POSITIVE", "feedback_reason": CANARY})
    path = {"delete": f"/v1/memories/{memory}/", "delete_all": "/v1/memories/?user_id=alice"}
    assert client.delete(path.get(how, "/v2/entities/user/alice/")).status_code == 200
    assert rows(database) == []
