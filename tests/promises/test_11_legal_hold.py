"""A legal hold beats everything."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from service.wiring import Services
from tests.conftest import Postgres, principal_of
from tests.process.memvault import add
from tests.promises.faces import Connect

pytestmark = pytest.mark.promises


def kept(database: Postgres) -> list[Any]:
    """Every row of memories, history and people."""
    with psycopg.connect(database.admin) as connection:
        return [
            connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()  # type: ignore[arg-type]
            for table in ("memories", "history", "subjects")
        ]


def test_a_legal_hold_beats_everything(services: Services, database: Postgres, connect: Connect) -> None:
    """A legal hold beats delete, rewriting, erase and SQL by the application role; setting and releasing one need two
    different people.
    """
    client = connect(services)
    held, _ = add(client, "I love Italian food", "I live in Rome")
    tenant = services.installation.tenants.get("acme").id
    headers = {}
    for person in ("ada", "ben"):
        _, secret = principal_of(services, tenant, role="compliance_officer", owner=f"{person}@example.org")
        headers[person] = {"Authorization": f"Token {secret}"}
    hold = client.post(
        "/v1/holds/", json={"name": "case-1", "reason": "Matter 1", "user_id": "alice"}, headers=headers["ada"]
    ).json()
    before = kept(database)
    calls: list[tuple[str, str, Any]] = [
        ("DELETE", f"/v1/memories/{held}/", None),
        ("DELETE", "/v1/memories/?user_id=alice", None),
        ("DELETE", "/v2/entities/user/alice/", None),
        ("PUT", f"/v1/memories/{held}/", {"text": "I love French food"}),
        ("PUT", f"/v1/memories/{held}/", {"metadata": {"changed": True}}),
        ("PUT", f"/v1/memories/{held}/", {"timestamp": 1}),
        ("PUT", f"/v1/memories/{held}/", {"expiration_date": "2099-12-31"}),
    ]
    for method, path, body in calls:
        answer = client.request(method, path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (409, "legal_hold"), (method, path, answer.text)
        assert "case-1" in answer.json()["detail"]
    with psycopg.connect(database.app, autocommit=True) as connection:
        connection.execute("SELECT set_config('app.tenant', %s, false)", [str(tenant)])
        for statement in (
            "DELETE FROM memories",
            "UPDATE memories SET content = ''",
            "DELETE FROM history",
            "UPDATE history SET content = NULL",
            "DELETE FROM hold_members",
            "DELETE FROM holds",
        ):
            with pytest.raises(psycopg.DatabaseError):
                connection.execute(statement)  # type: ignore[arg-type]
    assert kept(database) == before
    release = f"/v1/holds/{hold['id']}/release/"
    assert client.post(release, json={"reason": "settled"}, headers=headers["ada"]).status_code == 403
    assert client.delete(f"/v1/memories/{held}/").status_code == 409
    assert client.post(release, json={"reason": "settled"}, headers=headers["ben"]).status_code == 200
    assert client.delete(f"/v1/memories/{held}/").status_code == 200
