"""Processes that are started again whenever they ended, as an orchestrator does, and the way to those that live."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress

import httpx

from tests.process.memvault import Memvault, MemvaultWorker

_LOOK_EVERY = 0.05
#: Seconds between two starts of what ends by itself.
_PAUSE = 0.5


class Kept:
    """One process, and the thread that starts it again. `alive` from its first readiness until it ends."""

    def __init__(self, memvault: Memvault, *arguments: str) -> None:
        self.memvault = memvault
        self.exits: list[int] = []
        self.alive = threading.Event()
        self.wrong: list[str] = []
        self._arguments = arguments
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)

    def start(self) -> None:
        """Start it, and keep it from now on."""
        self._thread.start()

    def kill(self) -> bool:
        """Kill it at once, wherever it is; tell whether it was there."""
        with self._lock:
            process = self.memvault.process
            if process is None or process.poll() is not None:
                return False
            self.alive.clear()
            process.kill()
            process.wait(60)
            return True

    def let_go(self) -> None:
        """Start it no more."""
        self._stop.set()
        self._thread.join(120)

    def _keep(self) -> None:
        while not self._stop.wait(_LOOK_EVERY):
            with self._lock:
                process = self.memvault.process
                if process is None or process.poll() is not None:
                    self._again()
                    continue
            if not self.alive.is_set() and self._is_up():
                self.alive.set()

    def _again(self) -> None:
        self.alive.clear()
        process = self.memvault.process
        if process is not None:
            self.exits.append(process.returncode)
            self.memvault.process = None
            if process.returncode != -9:
                self._stop.wait(_PAUSE)
        self.memvault.spawn(*self._arguments)

    def _is_up(self) -> bool:
        if isinstance(self.memvault, MemvaultWorker):
            return "waiting for work" in self.memvault.printed
        found = self.memvault.find_url()
        if found is None:
            return False
        with suppress(httpx.HTTPError):
            if httpx.get(f"{found}/readyz", trust_env=False, timeout=10).status_code == 200:
                self.memvault.url = found
                return True
        return False


class Doors:
    """The services that a call can be sent to."""

    def __init__(self, services: Sequence[Kept]) -> None:
        self._services = services

    def next(self, turn: int, *, seconds: float = 180.0) -> str:
        """Return one that lives, another one each turn; wait for one if need be."""
        deadline = time.monotonic() + seconds
        while True:
            alive = [kept.memvault.url for kept in self._services if kept.alive.is_set()]
            if alive:
                return alive[turn % len(alive)]
            assert time.monotonic() < deadline, f"no service was up within {seconds} s"
            time.sleep(_LOOK_EVERY)


class Count:
    """How many calls were begun: the clock of a storm."""

    def __init__(self) -> None:
        self._value = 0
        self._changed = threading.Condition()
        self.closed = threading.Event()

    @property
    def value(self) -> int:
        """How many there were."""
        return self._value

    def add(self) -> None:
        """Begin one."""
        with self._changed:
            self._value += 1
            self._changed.notify_all()

    def wait_for(self, value: int, *, seconds: float) -> bool:
        """Wait until there were so many; tell whether there were within so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._value >= value or self.closed.is_set(), seconds)
