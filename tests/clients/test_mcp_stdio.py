"""`memvault mcp` as clients start it: a local program on standard input and output, before a served instance."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import anyio
import psycopg
import pytest
from mcp import Client, MCPError, StdioServerParameters
from sqlalchemy import text

from service.main import create_app
from service.scope import Scope, TenantId, service_principal
from service.wiring import Services
from tests.clients.serving import serving
from tests.conftest import Postgres, principal_of

pytestmark = [pytest.mark.clients, pytest.mark.anyio]

ROOT = Path(__file__).parents[2]
COMMAND = ["-c", "from service.cli import main; main()", "mcp"]
HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}


@pytest.fixture
def anyio_backend() -> str:
    """The service runs on asyncio, and so do these clients."""
    return "asyncio"


@pytest.fixture
def folder(tmp_path: Path, url: str, secret: str) -> Path:
    """A data folder as `memvault serve` leaves it for its users: with the address and a key."""
    folder = tmp_path / "installation"
    folder.mkdir()
    kept = {"tenant_id": "x", "api_key": secret, "url": url}
    (folder / "credentials.json").write_text(json.dumps(kept), encoding="utf-8")
    return folder


def program(*arguments: str | Path) -> StdioServerParameters:
    """The program as a client's settings name it."""
    return StdioServerParameters(
        command=sys.executable, args=[*COMMAND, *map(str, arguments)], env={"PYTHONPATH": str(ROOT)}
    )


def trail(services: Services, tenant: TenantId) -> list[Any]:
    """The tenant's audit rows, the oldest first."""
    with services.installation.database.transaction(Scope.of(service_principal(tenant))) as connection:
        return list(connection.execute(text("SELECT * FROM audit ORDER BY seq")))


async def said(client: Client, tool: str, **arguments: Any) -> str:
    """Call a tool that must fail and return what it says."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error, result
    return str(result.content[0].text)


@pytest.mark.parametrize(("mode", "version"), [("auto", "2026-07-28"), ("legacy", "2025-11-25")])
async def test_everything_passes_through(
    services: Services, tenant: TenantId, folder: Path, mode: str, version: str
) -> None:
    async with Client(program("--data-dir", folder), mode=mode, read_timeout_seconds=60) as client:
        assert client.protocol_version == version
        assert "get_user_context" in (client.instructions or "")
        assert len((await client.list_tools()).tools) == 13
        stored = await client.call_tool("add_memory", {"text": "Alice rows", "user_id": "alice", "infer": False})
        assert stored.structured_content is not None
        memory_id = stored.structured_content["results"][0]["id"]
        found = await client.call_tool("search_memories", {"query": "sport"})
        assert found.structured_content is not None
        assert [one["id"] for one in found.structured_content["results"]] == [memory_id]

        (resource,) = (await client.list_resources()).resources
        assert "Alice rows" in (await client.read_resource(resource.uri)).contents[0].text
        assert (await client.list_resource_templates()).resource_templates
        (prompt,) = (await client.list_prompts()).prompts
        asked = await client.get_prompt(prompt.name, {"user_id": "alice"})
        assert "alice" in asked.messages[0].content.text

        assert (await said(client, "search_memories")).startswith("invalid_input: query: is needed")
        for wrong in (client.list_tools(cursor="x"), client.read_resource("memory://x"), client.get_prompt("x")):
            with pytest.raises(MCPError) as refused:
                await wrong
            assert refused.value.code == -32602
        with pytest.raises(MCPError):
            await client.call_tool("no_such_tool", {})
    # The program's client is named, not the program.
    assert {row.client for row in trail(services, tenant) if row.face == "mcp"} == {"mcp/0.1.0"}


async def test_progress_and_cancellation_pass_through(folder: Path, database: Postgres) -> None:
    heard: list[float] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append(progress)

    async with Client(program("--data-dir", folder), read_timeout_seconds=60) as client:
        await client.call_tool("add_memory", {"text": "stays", "user_id": "alice", "infer": False})
        with psycopg.connect(database.admin) as blocker:
            blocker.execute("LOCK TABLE memories IN ACCESS EXCLUSIVE MODE")
            with anyio.move_on_after(2.8) as given_up:
                await client.call_tool("get_memories", {}, progress_callback=hear)
            assert given_up.cancelled_caught
        assert len(heard) >= 2
        assert heard == sorted(set(heard))
        answer = await client.call_tool("get_memories", {})
        assert answer.structured_content is not None
        assert answer.structured_content["count"] == 1


async def test_a_service_that_is_down_is_told_and_one_that_is_back_is_used(
    services: Services, tenant: TenantId, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text(principal_of(services, tenant)[1] + "\n", encoding="utf-8")
    with serving(create_app(services)) as url:
        port = int(url.rpartition(":")[2])
    async with Client(program("--url", url, "--key-file", key), read_timeout_seconds=60) as client:
        told = await said(client, "search_memories", query="x")
        assert told.startswith(f"unavailable: no Memvault answers at {url}/mcp")
        assert "memvault serve" in told
        with pytest.raises(MCPError, match="no Memvault answers"):
            await client.list_tools()
        with serving(create_app(services), port=port):
            assert (await client.list_tools()).tools
        with pytest.raises(MCPError, match="no Memvault answers"):
            await client.list_resources()


async def test_a_service_that_is_starting_is_told_to_the_agent(
    services: Services, tenant: TenantId, tmp_path: Path
) -> None:
    key, go_on = tmp_path / "key", threading.Event()
    key.write_text(principal_of(services, tenant)[1], encoding="utf-8")

    def slow() -> Services:
        go_on.wait(60)
        return services

    with serving(create_app(slow, settings=services.settings)) as url:
        async with Client(program("--url", url, "--key-file", key), read_timeout_seconds=60) as client:
            assert (await said(client, "search_memories", query="x")).startswith("starting: ")
            go_on.set()
            with anyio.fail_after(30):
                while (await client.call_tool("search_memories", {"query": "x"})).is_error:
                    await anyio.sleep(0.1)


async def test_a_wrong_key_is_told_with_where_it_came_from(url: str, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("mv_wrong", encoding="utf-8")
    async with Client(program("--url", url, "--key-file", key), read_timeout_seconds=60) as client:
        with pytest.raises(MCPError, match="unauthenticated: .*" + str(key)):
            await client.list_tools()


def test_nothing_but_the_protocol_is_on_standard_output_and_it_ends_with_its_input(folder: Path) -> None:
    messages = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/list"},
    ]
    process = subprocess.Popen(
        [sys.executable, *COMMAND, "--data-dir", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(ROOT), "MEMVAULT_LOG__LEVEL": "debug"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        process.stdin.write("".join(json.dumps(message) + "\n" for message in messages) + "no protocol\n")
        process.stdin.flush()
        answers = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.stdin.close()
        assert process.wait(timeout=10) == 0
        rest = process.stdout.read()
    assert {answer["id"] for answer in answers} == {1, 2}
    assert all(json.loads(line)["jsonrpc"] == "2.0" for line in rest.splitlines())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "no API key: "),
        (["--key-file", "missing"], "--key-file missing: cannot be read"),
        (["--key-file", "empty"], "--key-file empty: must hold one API key"),
        (["--key-file", "key", "--url", "127.0.0.1:8080"], "--url: must be an address"),
        (["--data-dir", "broken"], "cannot be read, or is not what the service wrote"),
    ],
)
def test_what_is_missing_is_one_line(tmp_path: Path, arguments: list[str], told: str) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "key").write_text("mv_x", encoding="utf-8")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "credentials.json").write_text("[]", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, *COMMAND, *arguments],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
