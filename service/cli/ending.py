"""How a process that serves or works ends: it drains at the first signal, hurries at the second, and always ends."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Final

import uvicorn

from service import clock
from service.api.drain import Drain
from service.cli.leaving import leave

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
#: How long what the application opened may take to close when the end is hurried.
_HURRIED_SECONDS: Final = 2.0
_log = logging.getLogger("memvault")


class Asked:
    """Hears the signals that ask the process to end, and calls what each of them means."""

    def __init__(self, first: Callable[[], None], again: Callable[[], None]) -> None:
        self._first = first
        self._again = again
        self._asked = threading.Event()
        for number in _SIGNALS:
            signal.signal(number, self.hear)

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Take one signal; runs between two instructions of the main thread."""
        if self._asked.is_set():
            self._again()
            return
        self._asked.set()
        self._first()

    def then(self, again: Callable[[], None]) -> None:
        """Say what any later signal means from now on."""
        self._again = again

    def wait(self) -> None:
        """Wait for the first signal."""
        self._asked.wait()


class DrainingServer(uvicorn.Server):
    """A server that serves on for `drain_seconds` after it was told to end, while readiness says that it will."""

    def __init__(self, config: uvicorn.Config, drain: Drain, *, is_open: Callable[[], bool], seconds: float) -> None:
        super().__init__(config)
        self._drain = drain
        self._is_open = is_open
        self._seconds = seconds
        self._until: float | None = None
        #: What hears the signals: uvicorn would take them for itself while it runs, and raise them again at its end.
        self.asked = Asked(self._begin, self._hurry)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Hear a signal while the server runs."""
        self.asked.hear(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Tell, some times a second, whether it is time to end."""
        if self._until is not None and clock.monotonic() >= self._until:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let go of connections and requests, then of what the application opened."""
        await super().shutdown(sockets)
        if self.force_exit:
            # One that is hurried would leave this out: it is broken off then, which is told as an error of it.
            with suppress(TimeoutError):
                await asyncio.wait_for(self.lifespan.shutdown(), _HURRIED_SECONDS)

    def _begin(self) -> None:
        self._drain.begin()
        if self._seconds > 0 and self._is_open():
            self._until = clock.monotonic() + self._seconds
        else:
            # What is still starting is in nobody's list of the living: there is nothing to take it from.
            self.should_exit = True

    def _hurry(self) -> None:
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True


def end(*, left: int) -> None:
    """Return, or end the process here: see `leave`. Everything is closed by now.

    `left` is how much is cut off: it is not acknowledged, and of a job the next worker knows already.
    """
    if left:
        _log.warning("ended with work under way, which is taken up again", extra={"count": left})
    leave(0)
