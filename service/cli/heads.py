"""Bounds what of a request nobody is asked about: its head, in size and in time, and what comes after its answer."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: Bytes of the request line with its headers, and of all that is around a body beside as much as the body itself.
MOST_BYTES: Final = 64 * 1024


class BoundedHeads(HttpToolsProtocol):
    """uvicorn's own protocol, which takes a head of any size for as long as it takes to come.

    A head over the bound is answered with 400 and the connection closed; so is a body whose chunks and trailers are
    more than the body. A connection whose head is not there in time is closed, and so is one on which a body still
    comes that long after its request was answered.
    """

    #: Seconds from the first byte of a request, or from the connection, until its head has to be whole. As many has a
    #: body that is still coming when its request is answered: nobody reads it, so no other limit ends it.
    seconds: float = 30.0

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._head = 0
        self._around = 0
        self._body = 0
        self._whole = False
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to count the time."""
        super().connection_made(transport)
        self._give_time()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the time."""
        self._in_time()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take some bytes, unless there were too many that are no body."""
        self._around += len(data)
        super().data_received(data)
        if self._around > MOST_BYTES + self._body and not self.transport.is_closing():
            self._refuse()

    def on_message_begin(self) -> None:
        """Begin to count anew."""
        self._head = self._around = self._body = 0
        self._whole = False
        if self._late is None:
            self._give_time()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Count what the request is for."""
        self._head += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a header."""
        self._head += len(name) + len(value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Let the request in if its head is not too large; what is raised here is answered with 400."""
        self._in_time()
        if self._head > MOST_BYTES:
            raise ValueError("the head of a request is too large")
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Count a part of the body."""
        self._body += len(body)
        self._around -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Forget the time."""
        self._whole = True
        self._in_time()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Begin to count the time of what still comes of a request that is answered."""
        super().on_response_complete()
        if self.cycle.response_complete and not self._whole and self._late is None:
            self._give_time()

    def _give_time(self) -> None:
        self._late = self.loop.call_later(self.seconds, self._give_up)

    def _in_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        self._late = None
        self.transport.close()

    def _refuse(self) -> None:
        # There is none before the first request.
        if bool(self.cycle) and not self.cycle.response_complete:
            # An answer may have begun.
            self.transport.abort()
        else:
            self.send_400_response("Invalid HTTP request received.")


def bounded_heads(seconds: float) -> type[BoundedHeads]:
    """Return the protocol for heads that have to be whole in so many seconds."""
    return type("BoundedHeads", (BoundedHeads,), {"seconds": seconds})
