"""What of a request nobody is asked about, on a real socket: bounded in size and in time, for callers without a key."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.cli.heads import MOST_BYTES, bounded_heads

pytestmark = pytest.mark.integration

Connect = Callable[[], socket.socket]
LARGE = b"a" * 65_536


async def size(request: Request) -> Response:
    """Tell how large the body is."""
    return JSONResponse(len(await request.body()))


async def refuse(request: Request) -> Response:
    """Answer without a look at the body."""
    return JSONResponse("no", 401)


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Connect to a server whose heads, and bodies after the answer, have half a second."""
    app = Starlette(routes=[Route("/", size, methods=["GET", "POST"]), Route("/no", refuse, methods=["POST"])])
    config = uvicorn.Config(app, port=0, http=bounded_heads(0.5), log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    where = server.servers[0].sockets[0].getsockname()
    yield lambda: socket.create_connection(where, timeout=20)
    server.should_exit = True
    thread.join(10)


def answered(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
    received = b""
    try:
        while part := connection.recv(65_536):
            received += part
    except ConnectionError:
        # It closed while more was on its way.
        pass
    return received


def poured(connection: socket.socket, piece: bytes, most: int) -> int:
    """Send a piece again and again until the server closes; return how often that was."""
    sent = 0
    with suppress(OSError):
        while sent < most:
            connection.sendall(piece)
            sent += 1
    return sent


@pytest.mark.parametrize("piece", [LARGE, b"aa:bb\r\n" * 9_000, b"/" * 65_536])
def test_a_head_without_end_is_cut_off(connect: Connect, piece: bytes) -> None:
    with connect() as connection:
        connection.sendall(b"GET /" if piece.startswith(b"/") else b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ")
        assert poured(connection, piece, 2_000) < 2_000


def test_a_whole_head_that_is_too_large_is_400(connect: Connect) -> None:
    with connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * (MOST_BYTES + 1) + b"\r\n\r\n")
        assert answered(connection).startswith(b"HTTP/1.1 400 ")
    with connect() as connection:
        head = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-A: " + b"a" * (MOST_BYTES - 1_000) + b"\r\n\r\n"
        connection.sendall(head)
        assert answered(connection).startswith(b"HTTP/1.1 200 ")


def test_a_head_that_does_not_come_is_given_up(connect: Connect) -> None:
    for beginning in (b"", b"GET / HTTP/1.1\r\nHost:"):
        with connect() as connection:
            connection.sendall(beginning)
            assert answered(connection) == b""
    # One after another request, too.
    with connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET / HTTP/1.1\r\n")
        assert answered(connection) == b""


def test_a_body_may_be_large_and_slow(connect: Connect) -> None:
    with connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1310720\r\n\r\n")
        for number in range(20):
            connection.sendall(LARGE)
            time.sleep(0.1 if number % 2 else 0)
        assert answered(connection).endswith(b"1310720")
    with connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(200):
            connection.sendall(b"1000\r\n" + b"a" * 4_096 + b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        assert answered(connection).endswith(b"819200")


def test_chunks_and_trailers_may_not_be_more_than_the_body(connect: Connect) -> None:
    for piece in (b"1;" + b"a" * 1_000 + b"\r\na\r\n", b"0\r\nX-A: " + LARGE):
        with connect() as connection:
            connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            connection.sendall(piece)
            assert poured(connection, piece if piece.startswith(b"1") else LARGE, 5_000) < 5_000


@pytest.mark.parametrize(
    ("length", "piece"), [(b"Content-Length: 1000000", b"a"), (b"Transfer-Encoding: chunked", b"1\r\na\r\n")]
)
def test_a_body_that_does_not_end_after_its_answer_is_given_up(connect: Connect, length: bytes, piece: bytes) -> None:
    with connect() as connection:
        connection.sendall(b"POST /no HTTP/1.1\r\nHost: x\r\n" + length + b"\r\n\r\n")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 401 ")
        began = time.monotonic()
        with suppress(OSError):
            while time.monotonic() < began + 10:
                connection.sendall(piece)
                time.sleep(0.05)
        assert time.monotonic() < began + 5


def test_a_body_that_ends_after_its_answer_leaves_the_connection_open(connect: Connect) -> None:
    with connect() as connection:
        for _ in range(3):
            connection.sendall(b"POST /no HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n")
            assert connection.recv(65_536).startswith(b"HTTP/1.1 401 ")
            connection.sendall(b"body")
            # Longer than there was time for the body, shorter than an idle connection is kept.
            time.sleep(0.7)
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody")
        assert answered(connection).endswith(b"4")


def test_pipelined_requests_are_answered_in_turn(connect: Connect) -> None:
    with connect() as connection:
        one = b"POST /no HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody"
        connection.sendall(one * 3 + b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n")
        time.sleep(0.7)
        connection.sendall(b"body" + b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        told = answered(connection)
        assert (told.count(b" 401 "), told.count(b" 200 ")) == (3, 2)
