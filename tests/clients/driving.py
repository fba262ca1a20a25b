"""Drives an official client in a process of its own: calls go over a pipe, what the client raises is raised here."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

_ANSWER_SECONDS = 120.0


class Raised(Exception):
    """What the client raised, as its own process saw it."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        super().__init__(f"{told['kinds'][0]}: {told['message']}")
        self.told = told

    @property
    def kind(self) -> str:
        """The name of its class."""
        return str(self.told["kinds"][0])

    @property
    def message(self) -> str:
        """Its text."""
        return str(self.told["message"])

    @property
    def status(self) -> int | None:
        """The HTTP status, where the client keeps it."""
        status: int | None = self.told["status"]
        return status


@dataclass
class Driver:
    """A process in which clients of one kind live. `called` are the methods that came back with a result."""

    process: subprocess.Popen[str]
    called: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    _answers: queue.Queue[str] = field(default_factory=queue.Queue)
    _listener: threading.Thread | None = None

    def __post_init__(self) -> None:
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def close(self) -> None:
        """Stop listening to a process that has ended."""
        assert self._listener is not None
        self._listener.join(timeout=15)

    def order(self, op: str, **fields: Any) -> Any:
        """Send an order and return its result.

        Raises:
            Raised: when the client raised.
        """
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"op": op, **fields}) + "\n")
        self.process.stdin.flush()
        try:
            answer = json.loads(self._answers.get(timeout=_ANSWER_SECONDS))
        except queue.Empty:
            raise AssertionError(f"the driver did not answer to {op} {fields.get('method', '')}") from None
        if answer.get("ended"):
            raise AssertionError(f"the driver ended: {answer['ended']}")
        if "raised" in answer:
            raise Raised(answer["raised"])
        return answer["result"]

    def connect(self, url: str, key: str) -> Client:
        """Make a client of a served instance."""
        name = f"client {len(self.called)} {key[-6:]}"
        about = self.order("connect", client=name, host=url, key=key)
        return Client(self, name, about)

    def methods(self) -> set[str]:
        """The public methods of the client, by reflection."""
        return set(self.order("methods"))

    def outside(self) -> list[str]:
        """The outside hosts that the client tried to reach."""
        found: list[str] = self.order("outside")
        return found

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._answers.put(line)
        self._answers.put(json.dumps({"ended": self.process.wait()}))


@dataclass(frozen=True)
class Client:
    """One client in the driver's process."""

    driver: Driver
    name: str
    about: Mapping[str, Any]

    def __call__(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the client."""
        try:
            result = self.driver.order("call", client=self.name, method=method, args=list(args), kwargs=kwargs)
        except Raised:
            self.driver.refused.add(method)
            raise
        self.driver.called.add(method)
        return result

    @contextmanager
    def with_header(self, name: str, value: str) -> Iterator[Self]:
        """Send a header with each call of the block."""
        self.driver.order("header", client=self.name, name=name, value=value)
        try:
            yield self
        finally:
            self.driver.order("header", client=self.name, name=name, value=None)


def quiet_environment(home: Path) -> dict[str, str]:
    """Return the environment of a client's process: telemetry off, a home of its own, no proxies."""
    return {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(home),
        "MEM0_DIR": str(home / "mem0"),
        "MEM0_TELEMETRY": "false",
        "PYTHONDONTWRITEBYTECODE": "1",
        "NO_PROXY": "*",
        "LANG": "C.UTF-8",
    }


@contextmanager
def driving(command: Sequence[str], home: Path, *, folder: Path | None = None) -> Iterator[Driver]:
    """Start a driver and stop it when the block ends."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "stderr").open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=quiet_environment(home),
            cwd=folder or home,
        )
        driver = Driver(process)
        try:
            yield driver
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            finally:
                driver.close()
