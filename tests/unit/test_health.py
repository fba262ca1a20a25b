"""`memvault health`: what it says and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

pytestmark = pytest.mark.unit

READY = {"status": "ok", "parts": {"record": {"status": "ok", "reason": None}}}
UNREADY = {
    "status": "failed",
    "parts": {
        "record": {"status": "failed", "reason": "PostgreSQL does not answer"},
        "index": {"status": "starting", "reason": None},
        "extraction": {"status": "off", "reason": "no LLM"},
    },
}
Serve = Callable[[int, bytes], int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve one answer to every request, and return the port."""
    with ExitStack() as stack:

        def start(status: int, body: bytes) -> int:
            class Answer(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    self.send_response(status if self.path == "/readyz" else 404)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

                def log_message(self, format: str, *args: Any) -> None:
                    pass

            server = stack.enter_context(HTTPServer(("127.0.0.1", 0), Answer))
            stack.callback(server.shutdown)
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            return server.server_port

        yield start


def health(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    code = "from service.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, "health", *arguments], capture_output=True, text=True, env=environ, timeout=60
    )


def test_ready(serve: Serve) -> None:
    port = str(serve(200, json.dumps(READY).encode()))
    # A service that listens everywhere is asked on this machine; no proxy is between.
    done = health(MEMVAULT_SERVER__HOST="0.0.0.0", MEMVAULT_SERVER__PORT=port, http_proxy="http://127.0.0.1:1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ready\n", "")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (json.dumps(UNREADY).encode(), "/readyz answers 503 (record: PostgreSQL does not answer; index: starting)\n"),
        (b"<html>", "/readyz answers 503\n"),
    ],
)
def test_not_ready(serve: Serve, body: bytes, said: str) -> None:
    done = health("--port", str(serve(503, body)))
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)


def test_nothing_there_and_wrong_settings() -> None:
    assert health("--port", "1").returncode == 1
    done = health(MEMVAULT_SERVER__PRT="1")
    assert done.returncode == 2
    assert done.stderr == "memvault: MEMVAULT_SERVER__PRT: there is no such setting; see docs/settings.md\n"
