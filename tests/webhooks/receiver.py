"""A receiver of webhooks: a real HTTP server on this machine that keeps what it is sent."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Received:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """What came, and what is answered: the statuses one after the other, the last one again and again."""

    port: int = 0
    scheme: str = "http"
    statuses: list[int] = field(default_factory=lambda: [200])
    headers: dict[str, str] = field(default_factory=dict)
    #: What is sent instead of an answer; it may dribble.
    raw: Iterator[bytes] | None = None
    got: list[Received] = field(default_factory=list)
    came: threading.Event = field(default_factory=threading.Event)
    #: Seconds until it answers, unless it is released before.
    pause: float = 0.0
    released: threading.Event = field(default_factory=threading.Event)
    #: The most requests that it had before it at the same time.
    most_at_once: int = 0

    @property
    def host(self) -> str:
        """The entry of the allow-list."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{self.scheme}://{self.host}/hook?source=memvault"


@contextmanager
def receiving(*, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """Receive until the context ends."""
    receiver = Receiver(scheme="https" if tls else "http")
    present: set[int] = set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            present.add(id(self))
            receiver.most_at_once = max(receiver.most_at_once, len(present))
            receiver.released.wait(receiver.pause)
            present.discard(id(self))
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            receiver.got.append(Received(self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            receiver.came.set()
            if receiver.raw is not None:
                for part in receiver.raw:
                    self.wfile.write(part)
                    self.wfile.flush()
                self.close_connection = True
                return
            status = receiver.statuses.pop(0) if len(receiver.statuses) > 1 else receiver.statuses[0]
            self.send_response(status)
            for name, value in receiver.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST

        def log_message(self, *arguments: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            # A client that went away is what some tests are about.
            pass

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    receiver.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
