"""Qdrant servers that take a connection and say nothing: for as long as a test wants, or always."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tests.qdrant.serving import qdrant


@contextmanager
def hanging() -> Iterator[tuple[dict[str, Any], threading.Event]]:
    """Settings of an index on a Qdrant server that says nothing while the event is set, and hears it all after."""
    hang = threading.Event()

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError), source:
            while data := source.recv(65536):
                while hang.is_set():
                    time.sleep(0.02)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                one, _ = listener.accept()
                try:
                    other = socket.create_connection(("127.0.0.1", server.grpc_port or 0))
                except OSError:
                    # A client that tries once more when the server has ended with the test.
                    one.close()
                    raise
                for ends in ((one, other), (other, one)):
                    threading.Thread(target=pump, args=ends, daemon=True).start()

    with qdrant(grpc=True) as server, socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield {"url": server.url, "grpc_port": listener.getsockname()[1]}, hang
        hang.clear()


@contextmanager
def silent() -> Iterator[tuple[dict[str, Any], threading.Event]]:
    """The same of a server that reads whatever it is sent and never answers, whatever the event is."""

    def read(one: socket.socket) -> None:
        with suppress(OSError), one:
            while one.recv(65536):
                pass

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=read, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        port = listener.getsockname()[1]
        yield {"url": f"http://127.0.0.1:{port}", "grpc_port": port}, threading.Event()
