"""Serves the tests' Qdrant from a thread, or from a process of its own: `python -m tests.qdrant.serving PORT KEY`."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import uvicorn

from service.index.server import ServerIndex
from service.index.server_client import connect
from tests.integration.index.points import SIZE
from tests.qdrant.app import create_app

#: Names a real server to test against instead, with its key where it asks for one.
URL = "MEMVAULT_TEST_QDRANT_URL"
KEY = "MEMVAULT_TEST_QDRANT_API_KEY"


@dataclass(frozen=True)
class Qdrant:
    """A server that answers. `requests` is what it was asked, None for a real one."""

    url: str
    api_key: str | None
    requests: list[tuple[str, Any]] | None = None


@contextmanager
def qdrant(*, api_key: str | None = None, version: str = "1.19.0") -> Iterator[Qdrant]:
    """Serve from a thread until the block ends."""
    app = create_app(api_key=api_key, version=version)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        end = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive(), "the test's Qdrant did not start"
            assert time.monotonic() < end, "the test's Qdrant did not start in time"
            time.sleep(0.01)
        yield Qdrant(f"http://127.0.0.1:{listener.getsockname()[1]}", api_key, app.state.requests)
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()


def open_server(server: Qdrant, *, name: str | None = None, **given: Any) -> ServerIndex:
    """Open an index on a server: the one of a name, or a new one."""
    client = connect(server.url, api_key=server.api_key, ca_file=None, grpc_port=None, timeout=10, connections=8)
    return ServerIndex(client, **{"dimensions": SIZE, "model": "test", "name": name or f"test-{uuid4().hex}"} | given)


def qdrant_for_tests() -> Iterator[Qdrant]:
    """Yield the server that the environment names, else one of this process."""
    if url := os.environ.get(URL):
        yield Qdrant(url, os.environ.get(KEY))
        return
    with qdrant(api_key="a-key-of-the-tests-that-is-long-enough") as served:
        yield served


if __name__ == "__main__":
    uvicorn.run(create_app(api_key=sys.argv[2]), host="127.0.0.1", port=int(sys.argv[1]), log_config=None)
