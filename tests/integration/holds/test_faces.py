"""Holds over REST and on the command line: their lives, what is refused, and what everybody else is told of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from service.cli.app import commands
from service.errors import ConfigurationError, Forbidden
from service.main import create_app
from service.scope import TenantId
from service.wiring import Services
from tests.conftest import Postgres, principal_of
from tests.integration.api.conftest import assert_error
from tests.integration.holds.conftest import Add

pytestmark = pytest.mark.integration


@pytest.fixture
def clients(services: Services, tenant: TenantId) -> Iterator[dict[str, TestClient]]:
    """Clients of two people, of an agent without an owner, and of another tenant's admin."""
    rival = services.installation.tenants.create("rival").id
    app, made = create_app(services), {}
    people = (
        ("ada", tenant, "compliance_officer", "ada"),
        ("ben", tenant, "compliance_officer", "ben"),
        ("agent", tenant, "agent", None),
        ("rival", rival, "admin", "ada"),
    )
    with ExitStack() as stack:
        for name, of, role, owner in people:
            _, secret = principal_of(services, of, role=role, owner=owner)
            made[name] = stack.enter_context(TestClient(app, raise_server_exceptions=False))
            made[name].headers["Authorization"] = f"Token {secret}"
        yield made


def test_the_life_of_a_hold(clients: dict[str, TestClient], add: Add) -> None:
    held = add(channel="legal")
    add("coffee", user="bob", channel="legal")
    ada, ben, agent = clients["ada"], clients["ben"], clients["agent"]
    filters = {"AND": [{"user_id": "alice"}, {"metadata": {"channel": "legal"}}]}
    made = ada.post("/v1/holds/", json={"name": "case-7", "reason": "Matter 7", "filters": filters})
    assert made.status_code == 201, made.text
    hold: dict[str, Any] = made.json()
    assert (hold["state"], hold["covers"], hold["members"], hold["reason"]) == ("live", "filter", 1, "Matter 7")
    assert hold["filters"] == {"AND": [{"user_id": {"eq": "alice"}}, {"metadata": {"channel": {"eq": "legal"}}}]}
    for answer in (
        agent.delete(f"/v1/memories/{held}/"),
        agent.delete("/v1/memories/?user_id=alice"),
        agent.put(f"/v1/memories/{held}/", json={"text": "no"}),
        ada.delete("/v2/entities/user/alice/"),
    ):
        assert "case-7" in assert_error(answer, 409, "legal_hold")["detail"]
    assert ben.get(f"/v1/holds/{hold['id']}/").json() == hold
    members = ben.get(f"/v1/holds/{hold['id']}/members/").json()
    assert (members["count"], members["results"][0]["id"]) == (1, str(held))
    release = f"/v1/holds/{hold['id']}/release/"
    assert_error(ada.post(release, json={"reason": "mine"}), 403, "forbidden")
    assert_error(agent.post(release, json={"reason": "mine"}), 403, "forbidden")
    released = ben.post(release, json={"reason": "settled"}).json()
    assert (released["state"], released["release_reason"]) == ("released", "settled")
    assert released["placed_by"]["person_id"] != released["released_by"]["person_id"]
    assert_error(ben.post(release, json={"reason": "settled"}), 409, "conflict")
    assert agent.delete(f"/v1/memories/{held}/").status_code == 200


def test_lists_have_pages_and_states(clients: dict[str, TestClient]) -> None:
    ada, ben = clients["ada"], clients["ben"]
    ids = []
    for number in range(3):
        body = {"name": f"case-{number}", "reason": "why", "user_id": f"user {number}"}
        ids.append(ada.post("/v1/holds/", json=body).json()["id"])
    ben.post(f"/v1/holds/{ids[0]}/release/", json={"reason": "settled"})
    page = ada.get("/v1/holds/?page_size=2").json()
    assert (page["count"], [one["name"] for one in page["results"]]) == (3, ["case-2", "case-1"])
    assert [one["name"] for one in ada.get(page["next"]).json()["results"]] == ["case-0"]
    assert ada.get("/v1/holds/?state=live").json()["count"] == 2
    assert ada.get("/v1/holds/?state=released").json()["count"] == 1
    assert_error(ada.get("/v1/holds/?state=gone"), 400, "invalid_input")


def test_bad_calls_are_refused_and_another_tenant_s_hold_does_not_exist(
    clients: dict[str, TestClient], add: Add
) -> None:
    ada, rival = clients["ada"], clients["rival"]
    held = add()
    hold = ada.post("/v1/holds/", json={"name": "case", "reason": "why", "memory_ids": [str(held)]}).json()
    for path in (f"/v1/holds/{hold['id']}/", f"/v1/holds/{hold['id']}/members/"):
        assert_error(rival.get(path), 404, "not_found")
    assert_error(rival.post(f"/v1/holds/{hold['id']}/release/", json={"reason": "why"}), 404, "not_found")
    assert_error(ada.get("/v1/holds/nonsense/"), 404, "not_found")
    assert_error(ada.post("/v1/holds/nonsense/release/", json={"reason": "why"}), 404, "not_found")
    for ids in (["nonsense"], [str(uuid4())], [str(held), "nonsense"]):
        body: dict[str, Any] = {"name": "other", "reason": "why", "memory_ids": ids}
        assert_error(ada.post("/v1/holds/", json=body), 404, "not_found")
    theirs = {"name": "other", "reason": "why", "memory_ids": [str(held)]}
    assert_error(rival.post("/v1/holds/", json=theirs), 404, "not_found")
    for more in ({}, {"filters": {}}, {"filters": {"nothing": 1}}, {"user_id": "*"}, {"user_id": "a", "app": "b"}):
        assert_error(ada.post("/v1/holds/", json={"name": "other", "reason": "why", **more}), 400, "invalid_input")


def test_the_command_line_acts_as_the_person_whose_key_it_has(
    services: Services, tenant: TenantId, database: Postgres, tmp_path: Path, add: Add
) -> None:
    add()
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"data_dir": str(services.settings.data_dir), "database": database.urls}))

    def run(*arguments: str) -> Any:
        result = CliRunner().invoke(commands(), [*arguments, "--tenant", "acme", "--config", str(config), "--json"])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def key_of(person: str) -> list[str]:
        made = run("key", "create", "--role", "compliance_officer", "--owner", f"{person}@example.org")
        file = tmp_path / person
        file.write_text(f"{made['api_key']}\n")
        return ["--key-file", str(file)]

    ada, ben = key_of("ada"), key_of("ben")
    made = ("hold", "place", "case-1", "--reason", "why", "--user", "alice")
    with pytest.raises(ConfigurationError, match="key-file"):
        run(*made, "--key-file", str(config))
    assert run(*made, *ada)["members"] == 1
    release = ("hold", "release", "case-1", "--reason", "settled")
    with pytest.raises(Forbidden, match="another person"):
        run(*release, *ada)
    assert run(*release, *ben)["state"] == "released"
    assert [one["name"] for one in run("hold", "list")] == ["case-1"]
    assert run("hold", "show", "case-1")["release_reason"] == "settled"
    assert {key["owner"] for key in run("key", "list")} == {"ada@example.org", "ben@example.org"}
