"""The connector of the documentation, run as it stands on the generations of Mem0's client that take its calls."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.clients.python_clients import NotInstalled, find
from tests.docs.pages import ROOT

pytestmark = pytest.mark.clients

PROGRAM = ROOT / "docs" / "examples" / "fastapi_connector.py"


@pytest.fixture(params=["client-1.0.11", "client-0.1.118"])
def packages(request: pytest.FixtureRequest) -> Path:
    """The packages of a client's environment, or a skip that says why they are not there."""
    try:
        environment = find(request.param)
    except NotInstalled as error:
        pytest.skip(str(error))
    (found,) = environment.folder.glob("lib/python*/site-packages")
    return found


@contextmanager
def running(packages: Path, url: str, key: str, folder: Path) -> Iterator[httpx.Client]:
    """Run the program until the context ends. FastAPI is that of this environment, Mem0's client the older one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    key_file = folder / "key.txt"
    key_file.write_text(key, encoding="utf-8")
    own = {
        "PYTHONPATH": str(packages),
        "MEM0_TELEMETRY": "false",
        "HOME": str(folder),
        "MEM0_DIR": str(folder / "mem0"),
    }
    command = [sys.executable, str(PROGRAM), "--url", url, "--key-file", str(key_file), "--port", str(port)]
    process = subprocess.Popen(command, env=os.environ | own, cwd=folder, stderr=subprocess.PIPE, text=True)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            deadline = time.monotonic() + 120
            while True:
                assert process.poll() is None, process.stderr.read() if process.stderr else ""
                assert time.monotonic() < deadline, "the program does not answer"
                try:
                    client.get("/openapi.json")
                    break
                except httpx.TransportError:
                    time.sleep(0.1)
            yield client
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        if process.stderr:
            process.stderr.close()


def test_the_connector_works_end_to_end(packages: Path, url: str, secret: str, tmp_path: Path) -> None:
    summary = "Alice prefers yearly billing; her ticket about a late delivery is open"
    body = {
        "user_id": "alice",
        "summary": summary,
        "channel": "#billing",
        "connector": "slack",
        "labels": ["preference"],
    }
    own = httpx.Client(base_url=url, headers={"Authorization": f"Token {secret}"}, timeout=60)
    with own, running(packages, url, secret, tmp_path) as connector:
        stored = connector.post("/tools/store_interaction_summary", json=body)
        assert stored.status_code == 200, stored.text
        assert stored.json()["status"] == "ok"
        memory = own.get(f"/v1/memories/{stored.json()['memory_id']}/").json()
        assert (memory["memory"], memory["user_id"]) == (summary, "alice")
        labels = ["preference", "interaction_summary"]
        assert memory["metadata"] == {"connector": "slack", "channel": "#billing", "labels": labels}
        asked = connector.post("/tools/get_user_context", json={"user_id": "alice"})
        assert asked.json() == {"context_snippets": [summary]}
        nobody = connector.post("/tools/get_user_context", json={"user_id": "bob", "query": "billing"})
        assert nobody.json() == {"context_snippets": []}

        # The service's own calls take the same bodies and give the same answers.
        ours = own.post("/tools/store_interaction_summary", json=body)
        assert ours.json() == stored.json(), "the same summary is the same memory"
        assert own.post("/tools/get_user_context", json={"user_id": "alice"}).json() == asked.json()
