"""The page that connects agents: every JSON entry leads to the tools, and the Python blocks of our own part run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

pytestmark = [pytest.mark.clients, pytest.mark.anyio]

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "connect-an-agent.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
ENTRIES = [json.loads(text) for language, text in BLOCKS if language == "json"]
PYTHON = [text for language, text in BLOCKS if language == "python"]
#: For frameworks that are not installed here.
FOREIGN = [text for language, text in BLOCKS if language == "text" and "import " in text]


@pytest.fixture
def anyio_backend() -> str:
    """The service runs on asyncio, and so do these clients."""
    return "asyncio"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """What the examples are run with: Mem0's client would write to the home folder and call home."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MEMVAULT_", "MEM0_"))}
    own = {
        "HOME": str(tmp_path),
        "MEM0_DIR": str(tmp_path / "mem0"),
        "MEM0_TELEMETRY": "false",
        "NO_PROXY": "127.0.0.1",
    }
    return {**kept, **own, "PYTHONPATH": str(ROOT)}


def filled(text: str, url: str, secret: str) -> str:
    """An example with the address and the key of the served instance."""
    assert "http://127.0.0.1:8080" in text
    return text.replace("http://127.0.0.1:8080", url).replace("mv_your_key", secret)


def server_of(entry: dict[str, Any]) -> dict[str, Any]:
    """The one server of an entry."""
    (servers,) = entry.values()
    (server,) = servers.values()
    assert isinstance(server, dict)
    return server


def test_there_is_a_block_for_each() -> None:
    assert [set(entry) for entry in ENTRIES].count({"servers"}) == 1
    assert len([entry for entry in ENTRIES if "url" in server_of(entry)]) == 3
    assert len([entry for entry in ENTRIES if "command" in server_of(entry)]) == 1
    assert len(PYTHON) == 2
    assert len(FOREIGN) == 2
    for name in (
        "Claude Desktop",
        "custom connector",
        "Claude Code",
        "Cursor",
        "VS Code",
        "LangGraph",
        "OpenAI Agents",
    ):
        assert re.search(f"^##.*{name}", PAGE, re.MULTILINE), name


@pytest.mark.parametrize("text", PYTHON + FOREIGN, ids=lambda text: text.splitlines()[2])
def test_code_compiles(text: str) -> None:
    compile(text, "connect-an-agent.md", "exec")


@pytest.mark.parametrize("entry", [entry for entry in ENTRIES if "url" in server_of(entry)], ids=str)
async def test_an_entry_leads_to_the_tools(entry: dict[str, Any], url: str, secret: str) -> None:
    server = json.loads(filled(json.dumps(server_of(entry)), url, secret))
    async with (
        httpx2.AsyncClient(headers=server["headers"], timeout=60) as http,
        Client(streamable_http_client(server["url"], http_client=http), mode="legacy") as client,
    ):
        assert len((await client.list_tools()).tools) == 13


async def test_the_local_program_leads_to_the_tools(url: str, secret: str, tmp_path: Path) -> None:
    (server,) = (server_of(entry) for entry in ENTRIES if "command" in server_of(entry))
    assert server["command"].endswith("/.venv/bin/memvault")
    kept = {"tenant_id": "x", "api_key": secret, "url": url}
    (tmp_path / "credentials.json").write_text(json.dumps(kept), encoding="utf-8")
    arguments = [str(tmp_path) if one.startswith("/") else one for one in server["args"]]
    program = StdioServerParameters(
        command=sys.executable,
        args=["-c", "from service.cli import main; main()", *arguments],
        env={"PYTHONPATH": str(ROOT)},
    )
    async with Client(program) as client:
        assert len((await client.list_tools()).tools) == 13


def test_the_program_of_ones_own_runs(url: str, secret: str, environment: dict[str, str]) -> None:
    (own,) = (text for text in PYTHON if "get_user_context" in text)
    done = subprocess.run(
        [sys.executable, "-c", filled(own, url, secret)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Alice rows" in done.stdout


async def test_the_server_with_a_memory_runs(url: str, secret: str, environment: dict[str, str]) -> None:
    (own,) = (text for text in PYTHON if "MCPServer" in text)
    program = StdioServerParameters(command=sys.executable, args=["-c", filled(own, url, secret)], env=environment)
    async with Client(program, read_timeout_seconds=60) as client:
        (tool,) = (await client.list_tools()).tools
        first = await client.call_tool(tool.name, {"author": "alice", "ticket": "My boat leaks"})
        second = await client.call_tool(tool.name, {"author": "alice", "ticket": "Is the boat repaired?"})
    assert first.content[0].text == "nothing"
    assert "My boat leaks" in second.content[0].text
