"""Mem0's command line client with `MEM0_BASE_URL`: each command against a served instance, and its errors."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.scope import TenantId
from service.wiring import Services
from tests.clients import methods
from tests.clients.conftest import Busy
from tests.clients.driving import quiet_environment
from tests.clients.python_clients import Environment, NotInstalled, find
from tests.conftest import principal_of

pytestmark = pytest.mark.clients

DRIVER = Path(__file__).parent / "drivers" / "mem0_cli.py"
_SECONDS = 60


class Mem0:
    """The command, run in a process for each call; what would have left this machine is noted in a file."""

    def __init__(self, environment: Environment, home: Path, url: str, key: str) -> None:
        self._python = str(environment.python)
        self.key = key
        self.home = home
        self._environ = quiet_environment(home) | {"MEM0_BASE_URL": url, "MEM0_API_KEY": key, "COLUMNS": "200"}
        self.noted = home / "outside"

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command."""
        return subprocess.run(
            [self._python, str(DRIVER), str(self.noted), *arguments],
            env=self._environ,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )

    def data(self, *arguments: str) -> Any:
        """Run a command that succeeds and return what it prints for programs."""
        done = self.run("--json", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        envelope = json.loads(done.stdout)
        assert envelope["status"] == "success", envelope
        return envelope["data"]

    def error(self, *arguments: str) -> str:
        """Run a command that fails, for people and for programs, and return what it says."""
        plain = self.run(*arguments)
        assert plain.returncode == 1, plain.stdout + plain.stderr
        assert "Traceback" not in plain.stderr
        told = self.run("--json", *arguments)
        assert told.returncode == 1
        message = " ".join((plain.stdout + plain.stderr).split())
        if told.stdout.strip():
            envelope = json.loads(told.stdout)
            assert envelope["status"] == "error"
            assert " ".join(str(envelope["error"]).split())[:40] in message
        return message


@pytest.fixture
def environment() -> Environment:
    """The command's environment."""
    try:
        return find("client-cli-0.2.13")
    except NotInstalled as reason:
        pytest.skip(str(reason))


@pytest.fixture
def mem0(environment: Environment, tmp_path: Path, url: str, secret: str) -> Mem0:
    """The command with an admin key."""
    home = tmp_path / "home"
    home.mkdir()
    return Mem0(environment, home, url, secret)


def test_every_command(mem0: Mem0) -> None:
    [added] = mem0.data(
        "add", "I like green tea", "--user-id", "alice", "--no-infer", "--metadata", '{"source": "cli"}'
    )
    assert (added["memory"], added["event"]) == ("I like green tea", "ADD")
    memory_id = added["id"]
    [bread] = mem0.data("add", "I bake bread", "--user-id", "alice", "--expires", "2099-01-31")
    found = mem0.data("search", "what does she drink?", "--user-id", "alice", "--threshold", "0.1", "--top-k", "1")
    assert [one["id"] for one in found] == [memory_id]
    assert 0 < found[0]["score"] <= 1
    assert mem0.data("get", memory_id)["memory"] == "I like green tea"
    listed = mem0.data("list", "--user-id", "alice", "--page", "1", "--page-size", "1")
    assert [one["id"] for one in listed] == [bread["id"]]
    assert [one["id"] for one in mem0.data("list", "--user-id", "alice", "--page", "2", "--page-size", "1")] == [
        memory_id
    ]
    assert mem0.data("update", memory_id, "I like black tea")
    assert mem0.data("get", memory_id)["memory"] == "I like black tea"
    events = mem0.data("event", "list")
    assert {(one["event_type"], one["status"]) for one in events} == {("ADD", "SUCCEEDED")}
    event = mem0.data("event", "status", events[0]["id"])
    assert event["status"] == "SUCCEEDED"
    mem0.data("add", "hello", "--agent-id", "helper", "--no-infer")
    assert [one["name"] for one in mem0.data("entity", "list", "users")] == ["alice"]
    assert [one["name"] for one in mem0.data("entity", "list", "agents")] == ["helper"]
    mem0.data("entity", "delete", "--agent-id", "helper", "--force")
    assert mem0.data("entity", "list", "agents") == []
    mem0.data("delete", bread["id"], "--force")
    mem0.data("delete", "--all", "--user-id", "alice", "--force")
    assert mem0.data("list", "--user-id", "alice") == []
    file = mem0.home / "memories.json"
    file.write_text(json.dumps([{"memory": "I sail", "user_id": "bob"}, {"text": "I ski"}]), encoding="utf-8")
    assert mem0.data("import", str(file), "--user-id", "bob") == {"added": 2, "failed": 0}
    done = mem0.run("init", "--api-key", mem0.key, "--user-id", "carol", "--force")
    assert done.returncode == 0, done.stdout + done.stderr
    status = mem0.data("status")
    assert status["connected"] is True
    # For people it prints the same.
    shown = mem0.run("search", "sailing", "--user-id", "bob").stdout
    assert "I sail" in shown
    assert "I sail" in mem0.run("list", "--user-id", "bob").stdout
    assert "SUCCEEDED" in mem0.run("event", "list").stdout
    assert "bob" in mem0.run("entity", "list", "users").stdout
    assert not mem0.noted.exists()


def test_the_list_of_commands_is_the_one_that_the_client_has(environment: Environment, tmp_path: Path) -> None:
    code = (
        "import json; from mem0_cli.app import app; out = []\n"
        "name = lambda one: one.name or one.callback.__name__.removesuffix('_cmd')\n"
        "out += [name(one) for one in app.registered_commands]\n"
        "for group in app.registered_groups:\n"
        "    out += [f'{group.name} {name(one)}' for one in group.typer_instance.registered_commands]\n"
        "print(json.dumps(out))"
    )
    done = subprocess.run(
        [str(environment.python), "-c", code],
        env=quiet_environment(tmp_path),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=True,
    )
    assert set(json.loads(done.stdout)) == set(methods.CLI), "a command has no state in tests/clients/methods.py"


def test_what_it_prints_on_errors(
    mem0: Mem0,
    environment: Environment,
    url: str,
    services: Services,
    tenant: TenantId,
    hold_user: Callable[[str], None],
    busy: Busy,
) -> None:
    mem0.data("add", "I like green tea", "--user-id", "alice", "--no-infer")

    def other(key: str) -> Mem0:
        return Mem0(environment, mem0.home, url, key)

    # There is no sign-up; what to do instead is told.
    assert "memvault key create" in mem0.error("init", "--email", "a@example.com", "--force")
    # 400 and 404 are told in words; of the others it knows the status.
    assert "name whose memory it is" in mem0.error("add", "x", "--no-infer")
    assert "filters" in mem0.error("search", "tea", "--filter", '{"AND": [{"owner": "x"}]}')
    assert "Resource not found" in mem0.error("get", "no-such-memory")
    assert "Resource not found" in mem0.error("entity", "delete", "--user-id", "nobody", "--force")
    assert "Invalid or expired API key" in other("mv_wrong").error("list", "--user-id", "alice")
    reader = other(principal_of(services, tenant, role="reader")[1])
    assert "403" in reader.error("add", "x", "--user-id", "alice", "--no-infer")
    assert "413" in mem0.error("add", "x" * 20_001, "--user-id", "alice", "--no-infer")
    [held] = mem0.data("add", "I keep bees", "--user-id", "carol", "--no-infer")
    hold_user("carol")
    assert "409" in mem0.error("delete", held["id"], "--force")
    limited = other(busy.secret)
    # The first request makes the bucket. What the replica took of it is spent before it is asked again.
    limited.run("list", "--user-id", "alice")
    busy.stop()
    told = [limited.run("list", "--user-id", "alice") for _ in range(4)]
    assert "429" in told[-1].stdout + told[-1].stderr
    services.index.close()
    assert "503" in mem0.error("search", "tea", "--user-id", "alice")
    assert not mem0.noted.exists()
