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
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import uvicorn

from service.index.server import ServerIndex
from service.index.server_client import connect
from tests.integration.index.points import SIZE
from tests.qdrant.app import create_app
from tests.qdrant.collections import Made
from tests.qdrant.remote import serve

#: Names a real server to test against instead, with its key where it asks for one.
URL = "MEMVAULT_TEST_QDRANT_URL"
KEY = "MEMVAULT_TEST_QDRANT_API_KEY"
GRPC_PORT = "MEMVAULT_TEST_QDRANT_GRPC_PORT"


@dataclass(frozen=True)
class Qdrant:
    """A server that answers. `requests` is what it was asked, None for a real one."""

    url: str
    api_key: str | None
    requests: list[tuple[str, Any]] | None = None
    grpc_port: int | None = None
    ca_file: Path | None = None
    #: The gRPC methods that were called, None for a real one.
    calls: list[str] | None = None
    #: The collections with what they were made with, None for a real one.
    made: Made | None = None


@dataclass(frozen=True)
class Tls:
    """The files of a server's certificate, which an authority of the test's own signed."""

    key: Path
    certificate: Path
    authority: Path


@contextmanager
def qdrant(
    *,
    api_key: str | None = None,
    version: str = "1.19.0",
    grpc: bool = False,
    tls: Tls | None = None,
    cluster: bool = True,
    watch: bool = False,
) -> Iterator[Qdrant]:
    """Serve from a thread until the block ends, over HTTP and gRPC; `grpc` says which of them is named."""
    app = create_app(api_key=api_key, version=version, cluster=cluster, watch=watch)
    listener = socket.create_server(("127.0.0.1", 0))
    files = None if tls is None else {"ssl_keyfile": tls.key, "ssl_certfile": tls.certificate}
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, **(files or {})))
    calls: list[str] = []
    pair = None if tls is None else (tls.key.read_bytes(), tls.certificate.read_bytes())
    remote, port = serve(app, calls, tls=pair)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        end = time.monotonic() + 30
        while not server.started:
            assert thread.is_alive(), "the test's Qdrant did not start"
            assert time.monotonic() < end, "the test's Qdrant did not start in time"
            time.sleep(0.01)
        scheme, http_port = "http" if tls is None else "https", listener.getsockname()[1]
        ca_file = None if tls is None else tls.authority
        yield Qdrant(
            f"{scheme}://127.0.0.1:{http_port}",
            api_key,
            app.state.requests,
            port if grpc else None,
            ca_file,
            calls,
            app.state.made,
        )
    finally:
        remote.stop(None).wait(30)
        server.should_exit = True
        thread.join(30)
        listener.close()


def open_server(server: Qdrant, *, name: str | None = None, **given: Any) -> ServerIndex:
    """Open an index on a server: the one of a name, or a new one."""
    client = connect(
        server.url,
        api_key=server.api_key,
        ca_file=server.ca_file,
        grpc_port=server.grpc_port,
        timeout=10,
        connections=8,
    )
    return ServerIndex(client, **{"dimensions": SIZE, "model": "test", "name": name or f"test-{uuid4().hex}"} | given)


def open_complete(server: Qdrant, *, name: str | None = None, **given: Any) -> ServerIndex:
    """Open an index that answers searches, as one of a record that was empty too."""
    index = open_server(server, name=name, **given)
    index.mark_complete()
    return index


def lose_data(server: Qdrant) -> None:
    """Leave the server with nothing, as with an empty volume. Aliases go with what they name."""
    headers = {} if server.api_key is None else {"api-key": server.api_key}
    with httpx.Client(base_url=server.url, headers=headers, trust_env=False) as client:
        for one in client.get("/collections").json()["result"]["collections"]:
            client.delete(f"/collections/{one['name']}").raise_for_status()


def has_shard_keys(server: Qdrant) -> bool:
    """Whether a server makes shard keys: one of the tests' own does, a real one when it is a cluster."""
    if server.made is not None:
        return True
    headers = {} if server.api_key is None else {"api-key": server.api_key}
    answer = httpx.get(f"{server.url}/cluster", headers=headers, trust_env=False)
    return bool(answer.json()["result"]["status"] == "enabled")


def qdrant_for_tests(*, grpc: bool) -> Iterator[Qdrant]:
    """Yield the server that the environment names, else one of this process, spoken to over HTTP or gRPC."""
    if url := os.environ.get(URL):
        port = os.environ.get(GRPC_PORT, "6334")
        yield Qdrant(url, os.environ.get(KEY), grpc_port=int(port) if grpc else None)
        return
    with qdrant(api_key="a-key-of-the-tests-that-is-long-enough", grpc=grpc) as served:
        yield served


if __name__ == "__main__":
    uvicorn.run(create_app(api_key=sys.argv[2]), host="127.0.0.1", port=int(sys.argv[1]), log_config=None)
