"""The first start says how to go on, in three blocks that work as they are printed; later starts keep the secret."""

from __future__ import annotations

import json
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.process.fixtures import MakeMemvault
from tests.process.memvault import Memvault, add, eventually, listed, search

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def first(written_model: Path) -> Iterator[Memvault]:
    """An installation in its first start."""
    memvault = Memvault(written_model)
    try:
        yield memvault.start()
    finally:
        memvault.remove()


def block(printed: str, number: int) -> str:
    """Return one of the numbered blocks, without its heading."""
    parts = re.split(r"^\d\. .*\n", printed, flags=re.MULTILINE)
    assert len(parts) == 4
    return parts[number].strip()


def test_the_three_blocks_work_as_they_are_printed(first: Memvault) -> None:
    # In this order, as a reader takes them: the second finds what the first stored.
    shell = subprocess.run(
        ["bash", "-c", block(first.printed, 1)], capture_output=True, text=True, env=first.environment(), timeout=60
    )
    assert shell.returncode == 0, shell.stderr
    answer = json.loads(shell.stdout)
    assert answer["status"] == "SUCCEEDED"
    assert [result["memory"] for result in answer["results"]] == ["I love Italian food"]

    python = subprocess.run(
        [sys.executable, "-c", block(first.printed, 2)],
        capture_output=True,
        text=True,
        cwd=first.cwd,
        # The client library reports its own use to its makers unless it is told not to; the service has no part in it.
        env=first.environment(MEM0_TELEMETRY="false"),
        timeout=120,
    )
    assert python.returncode == 0, python.stderr
    assert "I love Italian food" in python.stdout

    (server,) = json.loads(block(first.printed, 3))["mcpServers"].values()
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
    headers = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25"}
    tools = httpx.post(server["url"], json=body, headers=server["headers"] | headers, trust_env=False, timeout=30)
    assert tools.status_code == 200, tools.text
    names = {tool["name"] for tool in tools.json()["result"]["tools"]}
    assert "search_memories" in names
    call = {"name": "search_memories", "arguments": {"query": "which cuisine?", "filters": {"user_id": "alice"}}}
    found = httpx.post(
        server["url"],
        json={"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call},
        headers=server["headers"] | headers,
        trust_env=False,
        timeout=30,
    )
    assert "I love Italian food" in found.text


def test_the_credentials_are_kept_readable_by_their_owner_only(first: Memvault) -> None:
    path = first.data_dir / "credentials.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert set(first.credentials) == {"tenant_id", "api_key", "url"}
    assert first.credentials["url"] == first.url
    (tenant,) = first.json("tenant", "list")
    assert (tenant["tenant_id"], tenant["name"]) == (first.credentials["tenant_id"], "default")
    assert str(path) in first.printed


def test_the_key_is_in_no_log(first: Memvault) -> None:
    assert first.credentials["api_key"] in first.printed
    assert first.credentials["api_key"] not in first.stderr


def test_a_second_start_keeps_everything_and_shows_no_key(make_memvault: MakeMemvault) -> None:
    memvault = make_memvault().start()
    with memvault.client() as client:
        ids = add(client, "I moved to Lisbon", "My locker is XK-4711")
    assert memvault.stop() == 0
    memvault.start()
    assert "mv_" not in memvault.printed
    assert str(memvault.data_dir / "credentials.json") in memvault.printed
    with memvault.client() as client:
        # The port is another one now, and the file says so.
        kept = json.loads((memvault.data_dir / "credentials.json").read_text())
        assert kept["url"] == memvault.url
        assert [hit["id"] for hit in search(client, "where does she live?", top_k=1)] == ids[:1]
        assert set(listed(client)) == set(ids)
    assert not (memvault.data_dir / "mem0").exists()


def start_beside(memvault: Memvault, mem0: str) -> None:
    """Start with an LLM and with other code for Mem0, which stands before the real one, once that is being imported."""
    package = memvault.place / "packages"
    (package / "mem0").mkdir(parents=True)
    mark = memvault.place / "import-began"
    (package / "mem0" / "__init__.py").write_text(f"import time\nopen({str(mark)!r}, 'w').close()\n{mem0}")
    memvault.start(
        PYTHONPATH=f"{package}:{memvault.environment()['PYTHONPATH']}",
        MEMVAULT_LLM__PROVIDER="openai",
        MEMVAULT_LLM__MODEL="scripted",
        MEMVAULT_LLM__API_KEY="sk-none",
        MEMVAULT_LLM__BASE_URL="http://127.0.0.1:9/v1",
    )
    eventually(mark.exists)


def test_search_is_served_while_mem0_is_still_being_imported(make_memvault: MakeMemvault) -> None:
    slow = make_memvault()
    start_beside(slow, "time.sleep(3600)\n")
    with slow.client() as client:
        assert client.get("/readyz").json()["parts"]["extraction"]["status"] == "starting"
        (memory_id,) = add(client, "I play the cello")
        assert [hit["id"] for hit in search(client, "which instrument?")] == [memory_id]
    assert slow.stop() == 0


def test_a_stop_while_mem0_is_being_imported_is_in_order(make_memvault: MakeMemvault) -> None:
    """Mem0 checks its settings in native code as it is imported, where a thread cannot be taken away from."""
    slow = make_memvault()
    start_beside(
        slow,
        "from pydantic import BaseModel, field_validator\n"
        "class Settings(BaseModel):\n"
        "    place: str\n"
        "    @field_validator('place')\n"
        "    def wait(cls, value):\n"
        "        while True:\n"
        "            time.sleep(0.001)\n"
        "Settings(place='here')\n",
    )
    assert slow.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_ends_everything_and_leaves_nothing_behind(make_memvault: MakeMemvault, number: int) -> None:
    memvault = make_memvault().start()
    assert len(memvault.processes()) > 1
    assert memvault.stop(number) == 0
    assert memvault.processes() == []
    assert "Traceback" not in memvault.stderr
    assert list(memvault.temporary.iterdir()) == []
    assert list((memvault.data_dir / "postgres" / "run").iterdir()) == []


def test_a_stop_during_the_start_ends_everything_too(make_memvault: MakeMemvault) -> None:
    memvault = make_memvault()
    memvault.spawn()
    eventually(lambda: (memvault.data_dir / "postgres" / "start.log").exists() or None, seconds=60)
    assert memvault.stop() == 0
    assert memvault.processes() == []
    assert "Traceback" not in memvault.stderr
    with memvault.start().client() as client:
        add(client, "still works")


def test_a_folder_too_deep_for_a_socket_leaves_no_socket_folder_behind(make_memvault: MakeMemvault) -> None:
    memvault = make_memvault()
    deep = memvault.place / ("deep" * 12) / ("er" * 20)
    deep.parent.mkdir(mode=0o711)
    memvault.data_dir.rename(deep)
    memvault.data_dir = deep
    memvault.start()
    (sockets,) = memvault.temporary.iterdir()
    assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    assert memvault.stop() == 0
    assert list(memvault.temporary.iterdir()) == []
    assert memvault.processes() == []


HINT = "memvault key create --tenant default --role admin"


def one_line(ended: subprocess.CompletedProcess[str], *told: str) -> None:
    """Check that a command was refused with exit code 2 and one line."""
    assert ended.returncode == 2, (ended.returncode, ended.stderr)
    (line,) = ended.stderr.splitlines()
    assert line.startswith("memvault: ")
    for part in told:
        assert part in line


def test_a_second_serve_and_a_worker_are_refused_and_leave_no_trace(first: Memvault) -> None:
    path = first.data_dir / "credentials.json"
    before = path.read_bytes()
    # Each says in its log, too, that it could not open; the last line is for the one who typed the command.
    second = first.run("serve", "--port", "0")
    assert second.returncode == 2
    assert "in use by process" in second.stderr.splitlines()[-1]
    assert path.read_bytes() == before
    one_line(first.run("worker"), "worker: ", "runs the queue itself", "queue.in_process")
    with first.client() as client:
        assert client.get("/v1/ping/").status_code == 200


def test_of_two_first_starts_at_once_one_serves_and_its_key_is_the_one_that_is_kept(
    make_memvault: MakeMemvault,
) -> None:
    memvault = make_memvault()
    other = memvault.spawn()
    memvault.process = None
    winner = memvault.spawn()
    ended = eventually(lambda: next((one for one in (other, winner) if one.poll() is not None), None), seconds=90)
    assert ended.returncode == 2
    memvault.process = winner if ended is other else other
    memvault._read_from = 0
    memvault.wait_ready()
    assert memvault.stdout.count("Your admin key") == 1
    assert memvault.credentials["url"] == memvault.url
    assert memvault.credentials["api_key"] in memvault.stdout
    with memvault.client() as client:
        add(client, "the key works")


def test_a_crash_before_the_key_was_made_is_made_good_by_the_next_start(make_memvault: MakeMemvault) -> None:
    memvault = make_memvault()
    tenant = memvault.json("tenant", "create", "default")
    # As it is after the file was written and before the database had the key.
    kept = {"tenant_id": tenant["tenant_id"], "api_key": "mv_" + "x" * 43, "url": "http://127.0.0.1:1"}
    path = memvault.data_dir / "credentials.json"
    path.write_text(json.dumps(kept))
    memvault.start()
    assert f"Your admin key: {kept['api_key']}" in memvault.printed
    assert json.loads(path.read_text()) == kept | {"url": memvault.url}
    with memvault.client() as client:
        add(client, "the key works")
    (key,) = memvault.json("key", "list", "--tenant", "default")
    memvault.json("key", "revoke", key["key_id"], "--tenant", "default")
    memvault.stop()
    # Revoked stays revoked, and the start says what to do.
    memvault.start()
    assert "is not valid any more" in memvault.printed
    assert HINT in memvault.printed
    with memvault.client() as client:
        assert client.get("/v1/ping/").status_code == 401
    assert len(memvault.json("key", "list", "--tenant", "default")) == 1
    memvault.stop()
    path.unlink()
    memvault.start()
    assert HINT in memvault.printed
    assert "mv_" not in memvault.printed
    assert not path.exists()
    made = memvault.json(*HINT.split()[1:])
    with memvault.client(made["api_key"]) as client:
        add(client, "and doing so helps")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"url": 1}'])
def test_credentials_that_are_none_are_one_line(content: str, make_memvault: MakeMemvault) -> None:
    memvault = make_memvault()
    (memvault.data_dir / "credentials.json").write_text(content)
    ended = memvault.run("serve", "--port", "0")
    assert ended.returncode == 2
    assert "credentials.json: cannot be read" in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr
    assert memvault.processes() == []


@pytest.mark.parametrize(
    "command",
    [("tenant", "list"), ("key", "list", "--tenant", "default"), ("worker",), ("index", "rebuild"), ("serve",)],
    ids=" ".join,
)
def test_a_database_that_is_not_there_is_one_line_that_names_the_setting(
    command: tuple[str, ...], make_memvault: MakeMemvault
) -> None:
    memvault = make_memvault(MEMVAULT_DATABASE__URL="postgresql://app:hidden-word@127.0.0.1:1/memvault")
    port = ["--port", "0"] if command == ("serve",) else []
    ended = memvault.run(*command, *port)
    assert ended.returncode == 2, ended.stderr
    lines = ended.stderr.splitlines()
    assert lines[-1].startswith("memvault: database.url: ")
    assert len(lines) == 1 or command == ("serve",)
    assert "hidden-word" not in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_rebuild_that_no_worker_takes_is_not_waited_for_for_ever(make_memvault: MakeMemvault) -> None:
    memvault = make_memvault(MEMVAULT_QUEUE__IN_PROCESS="false").start()
    ended = memvault.run("index", "rebuild", "--json")
    assert ended.returncode == 1
    assert "queue.in_process" in ended.stderr.splitlines()[-1]
