"""The trail on the command line, and what the documentation says of it: its calls are made, its lists are whole."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from typer.testing import CliRunner

from service import clock
from service.audit.events import ACTIVITY_OF, Activity, AuditEvent
from service.cli.app import commands
from service.errors import ConfigurationError, MemvaultError, NotFound
from service.scope import TenantId
from service.settings import setting_names
from service.wiring import Services
from tests.conftest import Postgres
from tests.integration.audit_reading.conftest import MakeClient, Rows, add, search

pytestmark = pytest.mark.integration

PARTS = ("results", "memories", "matches", "shown")
DOCS = Path(__file__).parents[3] / "docs" / "audit.md"


@pytest.fixture
def config(services: Services, tenant: TenantId, database: Postgres, tmp_path: Path) -> str:
    """Settings by which the command line finds the test's installation."""
    key = tmp_path / "signing.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(key)], check=True, capture_output=True)
    key.chmod(0o600)
    settings = {
        "data_dir": str(services.settings.data_dir),
        "database": database.urls,
        "audit": {"signing_key": str(key), "checkpoint_folder": str(tmp_path / "checkpoints")},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return str(path)


def run(*arguments: str, code: int = 0) -> str:
    """Run a command and return its standard output."""
    result = CliRunner().invoke(commands(), list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stdout


def test_the_tail_shows_the_last_rows_and_is_in_the_trail(make_client: MakeClient, config: str, rows: Rows) -> None:
    client = make_client()
    for number in range(5):
        search(client, f"tea {number}")
    last = [str(row["id"]) for row in rows("memory:searched")[-3:]]
    lines = run("audit", "tail", "--tenant", "acme", "-n", "3", "--json", "--config", config).splitlines()
    assert [json.loads(line)["id"] for line in lines] == last
    row = rows("audit:read")[-1]
    assert (row["face"], row["principal_id"], row["permissions"]) == ("cli", None, ["audit:match", "audit:read"])
    assert row["detail"] == {"view": "tail", "filters": [], "rows": 3, "names": False}
    plain = run("audit", "tail", "--tenant", "acme", "--config", config)
    assert "memory:searched" in plain
    with pytest.raises(NotFound):
        run("audit", "tail", "--tenant", "globex", "--config", config)


def test_the_tail_of_the_service_itself_shows_wrong_keys(make_client: MakeClient, config: str) -> None:
    client = make_client()
    client.headers["Authorization"] = "Token mv_wrong"
    assert client.get("/v1/ping/").status_code == 401
    assert "credential:refused" in run("audit", "tail", "--tenant", "_system", "--config", config)


def test_the_tail_follows(make_client: MakeClient, config: str, rows: Rows) -> None:
    client = make_client()
    code = "from service.cli import main; main()"
    arguments = ["audit", "tail", "--tenant", "acme", "--follow", "--json", "--config", config]
    with subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines: Iterator[Any] = (json.loads(line) for line in process.stdout)
        try:
            assert next(line for line in lines if line["event"] == "audit:read")["face"] == "cli"
            for number in range(3):
                search(client, f"tea {number}")
                found = next(line for line in lines if line["event"] == "memory:searched")
                assert found["id"] == str(rows("memory:searched")[-1]["id"])
        finally:
            process.send_signal(signal.SIGINT)
    assert process.returncode == 0


def test_a_value_is_matched_on_the_command_line(make_client: MakeClient, config: str, rows: Rows) -> None:
    (memory_id,) = add(make_client(), "I love tea")
    options = ["--tenant", "acme", "--json", "--config", config]
    (row,) = rows("memory:added")
    for where in (["--user", "alice"], ["--memory", memory_id], ["--row", str(row["id"])]):
        found = json.loads(run("audit", "match", "I love tea", *where, *options))
        assert [one["audit_id"] for one in found["matches"]] == [str(row["id"])]
    assert json.loads(run("audit", "match", "I love rain", "--user", "alice", *options))["matches"] == []
    assert len(rows("audit:matched")) == 4
    with pytest.raises(ConfigurationError, match="give one of"):
        run("audit", "match", "I love tea", *options)
    with pytest.raises(MemvaultError, match="no such"):
        run("audit", "match", "I love tea", "--user", "nobody", *options)


def test_what_was_removed_between_two_dates_is_told(
    make_client: MakeClient, config: str, rows: Rows, database: Postgres
) -> None:
    client = make_client()
    add(client, "I love tea")
    search(client, "tea")
    run("audit", "checkpoint", "--config", config)
    verify = ["audit", "verify", "--tenant", "acme", "--json", "--config", config]
    report = json.loads(run(*verify))
    assert report["ok"] is True
    assert report["checkpoints"]["last_at"] > rows("memory:searched")[-1]["at"].isoformat()
    removed = rows("memory:added")[0]["id"]
    with psycopg.connect(database.admin, autocommit=True) as admin:
        admin.execute("DELETE FROM audit WHERE id = %s", [removed])
    report = json.loads(run(*verify, code=1))
    assert (report["first_bad"]["kind"], report["first_bad"]["row_id"]) == ("removed", str(removed))


def documented() -> list[tuple[str, str]]:
    """Method and the rest of each HTTP call in the documentation."""
    blocks = re.findall(r"```http\n(.*?)```", DOCS.read_text(), flags=re.DOTALL)
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for block in blocks for line in block.strip().splitlines()]


def test_every_documented_call_answers(make_client: MakeClient) -> None:
    client = make_client()
    (memory_id,) = add(client, "I love tea", agent_id="helper")
    search(client, "tea", **{"X-Request-ID": "answer-1"})
    values = {
        "{memory_id}": memory_id,
        "{key_id}": client.headers["X-Key"],
        "{agent_id}": "helper",
        "{request_id}": "answer-1",
        "{moment}": clock.now().isoformat().replace("+", "%2B"),
        "{week_ago}": (clock.now() - timedelta(days=7)).isoformat().replace("+", "%2B"),
    }
    calls = documented()
    assert len(calls) == 10
    for method, rest in calls:
        for name, value in values.items():
            rest = rest.replace(name, value)
        path, _, body = rest.partition(" ")
        answer = client.request(method, path, json=json.loads(body) if body else None)
        assert answer.status_code == 200, f"{method} {rest}: {answer.text}"
        if "export" not in path:
            assert any(answer.json().get(part) for part in PARTS) or "outcome" in path


def test_the_documentation_names_every_event_activity_and_setting() -> None:
    text = DOCS.read_text()
    named = set(re.findall(r"`([a-z]+:[a-z_]+)`", text.partition("## Events")[2].partition("## The auditor")[0]))
    assert named == set(AuditEvent)
    assert all(f"`{activity}`" in text for activity in Activity)
    assert set(ACTIVITY_OF.values()) == set(Activity)
    example = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)[0])["audit"]
    dotted = {f"audit.{name}" for name in example if name != "syslog"}
    dotted |= {f"audit.syslog.{name}" for name in example["syslog"]}
    assert dotted <= set(setting_names())
