"""Does a small piece of work again and again in a thread of its own, whatever becomes of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from service.errors import MemvaultError

_log = logging.getLogger("memvault")


class Ticker:
    """One thread. Work that fails is done again at the next turn."""

    def __init__(self, name: str, seconds: float, work: Callable[[], object]) -> None:
        self._name = name
        self._seconds = seconds
        self._work = work
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin; the first turn is after the first wait."""
        self._thread.start()

    def stop(self) -> None:
        """End, after what is under way."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(10)

    def _run(self) -> None:
        while not self._stopping.wait(self._seconds):
            try:
                self._work()
            except MemvaultError:
                # A store that is away is told of by whoever needs it for a request.
                continue
            except Exception as error:
                _log.error("work in the background failed", extra={"task": self._name, "error": type(error).__name__})
