"""Every example is run as it stands: shell and Python blocks against `memvault serve`, MCP entries by a request."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.docs.pages import ROOT, Block, blocks, pages
from tests.llm.scripted import ScriptedLLM

# One served instance for all of them, so one worker.
pytestmark = pytest.mark.integration

ADDRESS = "http://127.0.0.1:8080"
PLACEHOLDER = "mv_your_key"
RUN = {"bash", "python"}
#: A script that takes arguments cannot be run as it stands; the tests of what it is for run it with some.
EXAMPLES = {
    path: [block for block in blocks(path) if block.language in RUN and "sys.argv" not in block.text]
    for path in pages()
}
PAGES = [path for path, examples in EXAMPLES.items() if examples]
MCP_ENTRIES = [
    block
    for path in pages()
    for block in blocks(path)
    # An entry with a command is for clients that start a local program.
    if block.language == "json" and re.search(r'"(mcpServers|servers)"', block.text) and '"command"' not in block.text
]
_MARK = "@@@ block "
#: `curl` as in the examples, and an error of HTTP is an error of the example.
_PRELUDE = 'set -euo pipefail\ncurl() { command curl --fail-with-body "$@"; }\n'


@dataclass(frozen=True)
class Served:
    """A running service and the folder in which the examples are run, which looks like a checkout."""

    url: str
    key: str
    folder: Path

    def filled(self, text: str) -> str:
        """An example with this service's address and key."""
        return text.replace(ADDRESS, self.url).replace(PLACEHOLDER, self.key)


@pytest.fixture(scope="module")
def plain() -> Iterator[Served]:
    """A service with its defaults."""
    with served({}) as one:
        yield one


@pytest.fixture(scope="module")
def with_llm() -> Iterator[Served]:
    """A service with a scripted LLM."""
    with ScriptedLLM() as llm:
        settings = {"PROVIDER": "openai", "MODEL": "scripted", "API_KEY": "none", "BASE_URL": llm.url}
        with served({f"MEMVAULT_LLM__{name}": value for name, value in settings.items()}) as one:
            yield one


@pytest.mark.parametrize("path", PAGES)
def test_examples_run(path: str, request: pytest.FixtureRequest) -> None:
    """The blocks of a page are run one after the other in one shell; a JSON block after one is its answer."""
    service: Served = request.getfixturevalue("with_llm" if path == "docs/extraction.md" else "plain")
    script = [_PRELUDE]
    for block in EXAMPLES[path]:
        script.append(f"echo {shlex.quote(_MARK + str(block))}\n")
        text = service.filled(block.text)
        script.append(text if block.language == "bash" else f"python - <<'PYTHON'\n{text}PYTHON\n")
        script.append("echo\n")
    done = subprocess.run(
        ["bash", "-c", "".join(script)],
        cwd=service.folder,
        env=_environment(service.folder),
        capture_output=True,
        text=True,
        timeout=120,
    )
    said = done.stdout.split(_MARK)[1:]
    assert done.returncode == 0, f"{path}: {said[-1] if said else ''}\n{done.stderr}"
    answers = {part.splitlines()[0]: _last_document(part.split("\n", 1)[1]) for part in said}
    for before, shown in zip(blocks(path), blocks(path)[1:], strict=False):
        if before.language == "bash" and shown.language == "json":
            _compare(json.loads(shown.text), answers[str(before)], str(shown))


@pytest.mark.parametrize("block", MCP_ENTRIES, ids=str)
def test_mcp_entries_work(block: Block, plain: Served) -> None:
    """An MCP entry leads to the service's tools."""
    entry = json.loads(plain.filled(block.text))
    (server,) = next(iter(entry.values())).values()
    answer = httpx.post(
        server["url"],
        json={"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}},
        headers={
            **server["headers"],
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2025-11-25",
        },
    )
    assert answer.status_code == 200, answer.text
    assert "search_memories" in {tool["name"] for tool in answer.json()["result"]["tools"]}


def test_there_are_examples() -> None:
    assert {"README.md", "docs/api.md", "docs/connect.md", "docs/extraction.md", "docs/operate/README.md"} <= set(PAGES)
    assert len(MCP_ENTRIES) >= 3


def test_json_is_valid() -> None:
    shown = [block for path in pages() for block in blocks(path) if block.language == "json"]
    assert shown
    for block in shown:
        json.loads(block.text)


def test_a_wrong_answer_is_seen() -> None:
    """The comparison of answers can fail."""
    _compare({"a": [{"b": 1}]}, {"a": [{"b": 2}, {"b": 3}]}, "same")
    for shown, real in [({"a": 1}, {"a": 1, "b": 2}), ({"a": "x"}, {"a": 1}), ([{"a": 1}], []), ({"a": 1}, None)]:
        with pytest.raises(AssertionError):
            _compare(shown, real, "other")


@contextmanager
def served(environment: dict[str, str]) -> Iterator[Served]:
    """Run `memvault serve` in a new folder until the context ends."""
    # Not pytest's folder, which is 0700: as root, Postgres is another user and must be able to pass through.
    folder = Path(tempfile.mkdtemp(prefix="memvault-docs-"))
    folder.chmod(0o711)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        _make_commands(folder / ".venv" / "bin")
        log = stack.enter_context((folder / "log").open("w+", encoding="utf-8"))
        process = subprocess.Popen(
            [folder / ".venv" / "bin" / "memvault", "serve", "--port", "0"],
            cwd=folder,
            env=_environment(folder) | environment,
            stdout=log,
            stderr=log,
        )
        stack.callback(_stop, process)
        yield _when_ready(process, folder)


def _when_ready(process: subprocess.Popen[bytes], folder: Path) -> Served:
    credentials = folder / ".memvault" / "credentials.json"
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        assert process.poll() is None, (folder / "log").read_text(encoding="utf-8")
        if credentials.exists():
            found = json.loads(credentials.read_text(encoding="utf-8"))
            try:
                ready = httpx.get(f"{found['url']}/readyz", timeout=2).json()
            except (httpx.HTTPError, ValueError):
                ready = {}
            states = {part["status"] for part in ready.get("parts", {}).values()}
            if ready.get("status") == "ok" and "starting" not in states:
                return Served(found["url"], found["api_key"], folder)
        time.sleep(0.1)
    raise AssertionError("the service did not become ready\n" + (folder / "log").read_text(encoding="utf-8"))


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


def _make_commands(folder: Path) -> None:
    """Make the two commands of a checkout's environment, by which the examples call this one."""
    folder.mkdir(parents=True)
    start = f"exec {shlex.quote(sys.executable)}"
    entry = "from service.cli import main; main()"
    for name, line in {"python": start, "memvault": f"{start} -c {shlex.quote(entry)}"}.items():
        command = folder / name
        command.write_text(f'#!/bin/sh\n{line} "$@"\n', encoding="utf-8")
        command.chmod(0o755)


def _environment(folder: Path) -> dict[str, str]:
    ours = ("MEMVAULT_", "OPENAI_", "OPENROUTER_", "MEM0_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    path = f"{folder / '.venv' / 'bin'}{os.pathsep}{kept.get('PATH', os.defpath)}"
    # Mem0's client reports to its makers unless told not to, and writes its configuration into the home folder.
    own = {"PATH": path, "PYTHONPATH": str(ROOT), "HOME": str(folder), "MEM0_TELEMETRY": "false"}
    return kept | own | {"NO_PROXY": "127.0.0.1"}


def _last_document(text: str) -> Any:
    """The last JSON document that a block printed, or None."""
    decoder, found, place = json.JSONDecoder(), None, 0
    for start in re.finditer(r"[{\[]", text):
        if start.start() < place:
            continue
        try:
            found, place = decoder.raw_decode(text, start.start())
        except json.JSONDecodeError:
            continue
    return found


def _compare(shown: Any, real: Any, where: str) -> None:
    """Check that a shown answer has the shape of the real one: the same keys and the same kinds of values."""
    if isinstance(shown, dict):
        assert isinstance(real, dict), where
        assert set(shown) == set(real), where
        for key in shown:
            _compare(shown[key], real[key], f"{where} {key}")
    elif isinstance(shown, list):
        assert isinstance(real, list), where
        if shown:
            assert real, where
            _compare(shown[0], real[0], where)
    elif isinstance(shown, int | float) and not isinstance(shown, bool):
        assert isinstance(real, int | float), where
    else:
        assert type(shown) is type(real), where
