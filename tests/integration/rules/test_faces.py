"""Retention over REST and on the command line: versions of rules, dry runs, sets of rules from files."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from service.cli.app import commands
from service.retention.rule_files import rules_of
from service.retention.rules import check_body
from service.wiring import Services
from tests.conftest import Postgres
from tests.integration.api.conftest import MakeClient, app, assert_error, client, make_client
from tests.integration.rules.conftest import AddOld

pytestmark = pytest.mark.integration
__all__ = ["app", "client", "make_client"]

SETS = sorted((Path(__file__).parents[3] / "config" / "retention").glob("*.yaml"))
RULES = "/v1/retention/rules/"
RUNS = "/v1/retention/runs/"


def test_a_rule_has_versions_that_tell_who_changed_what(client: TestClient, make_client: MakeClient) -> None:
    body: dict[str, Any] = {"name": "old", "age": "P30D", "match": {"user_id": "alice"}}
    made = client.post(RULES, json=body)
    assert made.status_code == 201, made.text
    rule = made.json()
    other = make_client(role="compliance_officer")
    changed = other.put(f"{RULES}{rule['id']}/", json=body | {"age": "P60D", "priority": 5}).json()
    assert (changed["version"], changed["age"], changed["match"]) == (2, "P60D", {"user_id": {"eq": "alice"}})
    assert_error(client.post(RULES, json=body), 409, "conflict")
    assert client.delete(f"{RULES}{rule['id']}/").status_code == 200
    assert client.get(RULES).json()["count"] == 0
    versions = client.get(f"{RULES}{rule['id']}/").json()["results"]
    assert [(one["version"], one["age"], one["removed"]) for one in versions] == [
        (3, "P60D", True),
        (2, "P60D", False),
        (1, "P30D", False),
    ]
    assert versions[1]["changed_by"] != versions[2]["changed_by"] == versions[0]["changed_by"]
    assert_error(client.put(f"{RULES}{rule['id']}/", json=body), 404, "not_found")
    assert_error(make_client(role="agent").get(RULES), 403, "forbidden")


@pytest.mark.parametrize(
    "more",
    [
        {"name": "Old"},
        {"age": None},
        {"age": "30 days"},
        {"age": "-P1D"},
        {"grace": "P1D"},
        {"action": "burn"},
        {"action": "keep"},
        {"counted_from": "read"},
        {"match": {"nothing": 1}},
        {"priority": 1001},
    ],
    ids=str,
)
def test_a_rule_that_makes_no_sense_is_refused(more: dict[str, Any], client: TestClient) -> None:
    assert_error(client.post(RULES, json={"name": "old", "age": "P30D", **more}), 400, "invalid_input")


def test_an_erasure_inside_a_minimum_answers_with_its_date(client: TestClient) -> None:
    body = {"messages": [{"role": "user", "content": "a record"}], "user_id": "alice", "infer": False}
    memory_id = client.post("/v3/memories/add/", json=body).json()["results"][0]["id"]
    assert client.post(RULES, json={"name": "records", "age": "P10Y", "minimum": "P30D"}).status_code == 201
    stored_at = datetime.fromisoformat(client.get(f"/v1/memories/{memory_id}/").json()["created_at"])
    asked = client.post("/v1/erasures/", json={"user_id": "alice"})
    assert asked.status_code == 202, asked.text
    erasure = asked.json()
    # It counts from when it was stored, which is not the moment at which it was made to the microsecond.
    assert abs(datetime.fromisoformat(erasure["due_at"]) - stored_at - timedelta(days=30)) < timedelta(minutes=10)
    assert (erasure["status"], erasure["begun_at"], erasure["receipt"]) == ("scheduled", None, None)
    assert client.get(f"/v1/erasures/{erasure['id']}/").json() == erasure
    assert client.get(f"/v1/memories/{memory_id}/").json()["memory"] == "a record"


def test_a_dry_run_lists_by_page_what_would_go(client: TestClient, add_old: AddOld) -> None:
    old = {str(add_old(f"old {number}", 40)) for number in range(3)}
    add_old("young", 1)
    rule = client.post(RULES, json={"name": "old", "age": "P30D"}).json()
    run = client.post(RUNS, json={"dry_run": True}).json()
    assert (run["status"], run["deleted"], run["hidden"], run["seen"]) == ("done", 3, 0, 4)
    assert run["by_rule"] == [{"rule_id": rule["id"], "action": "delete", "count": 3}]
    page = client.get(f"{RUNS}{run['id']}/items/?page_size=2").json()
    items = page["results"] + client.get(page["next"]).json()["results"]
    assert {one["id"] for one in items} == old
    assert client.get(f"{RUNS}{run['id']}/").json() == run
    assert client.get(RUNS).json()["count"] == 1
    begun = client.post(RUNS, json={}).json()
    assert (begun["dry_run"], begun["status"]) == (False, "running")
    assert_error(client.get(f"{RUNS}nonsense/"), 404, "not_found")


def test_the_command_line_runs_and_applies_sets(
    services: Services, database: Postgres, tmp_path: Path, add_old: AddOld
) -> None:
    gone = add_old("summary", 40, kind="summary")
    add_old("preference", 40, kind="preference")
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"data_dir": str(services.settings.data_dir), "database": database.urls}))

    def run(*arguments: str) -> Any:
        result = CliRunner().invoke(commands(), ["retention", *arguments, "--config", str(config), "--json"])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    summaries = str(SETS[-1])
    assert run("apply", summaries, "--tenant", "acme")["created"] == ["preferences-stay", "summaries-30-days"]
    assert run("apply", summaries, "--tenant", "acme")["unchanged"] == ["preferences-stay", "summaries-30-days"]
    assert [one["name"] for one in run("rules", "--tenant", "acme")] == ["preferences-stay", "summaries-30-days"]
    (dry,) = run("run", "--dry-run", "--tenant", "acme")["tenants"]
    (real,) = run("run")["tenants"]
    assert [one["id"] for one in dry["items"]] == [one["id"] for one in real["items"]] == [str(gone)]
    assert (real["deleted"], real["status"]) == (1, "done")


@pytest.mark.parametrize("path", SETS, ids=lambda path: path.name)
def test_the_sets_can_be_applied_and_each_rule_is_explained(path: Path) -> None:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert document["description"]
    assert all(rule["description"] for rule in document["rules"])
    for body in rules_of(document):
        check_body(body)
