"""Fixtures of the tests that run Mem0: the scripted LLM, the real embedder, an engine, and a guard on the outside."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from service.embeddings import Embedder, Vector
from service.embeddings.minilm import MiniLM
from service.engine import Engine, LlmSettings, Recalled
from service.records import Message
from tests.llm.scripted import ScriptedLLM


@dataclass
class Shelf:
    """A reader over two lists: the memories and the messages of one scope."""

    memories: Sequence[Recalled] = ()
    messages: Sequence[Message] = ()
    asked: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, *texts: str, messages: Sequence[Message] = ()) -> Shelf:
        """A shelf with these memories, the best hit first."""
        return cls([Recalled(uuid4(), text, 1 - i / 100) for i, text in enumerate(texts)], messages)

    @property
    def ids(self) -> list[UUID]:
        """The ids of the memories."""
        return [memory.id for memory in self.memories]

    def similar(self, text: str, limit: int, *, vector: Vector) -> Sequence[Recalled]:
        """See `Reader`."""
        self.asked.append(text)
        return self.memories[:limit]

    def last_messages(self, limit: int) -> Sequence[Message]:
        """See `Reader`."""
        return self.messages[-limit:]


class Outside:
    """Sees, through the interpreter's audit hook, every connection beyond the loopback interface and every new process.

    It only notes them: what Mem0 does on the quiet, it does inside of `except Exception`.
    """

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.watching = False
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.watching:
            return
        if event == "socket.connect" and not _is_local(arguments[1]):
            self.seen.append(f"connected to {arguments[1]}")
        if event == "socket.getaddrinfo" and not _is_local((arguments[0],)):
            self.seen.append(f"looked up {arguments[0]}")
        # The OpenAI SDK asks the standard library's `platform` for the operating system, and that asks `uname -p`.
        if event in ("subprocess.Popen", "os.system", "os.posix_spawn") and arguments[0] != "uname":
            self.seen.append(f"{event} {arguments[0]}")


_outside = Outside()


@pytest.fixture(autouse=True)
def nothing_leaves() -> Iterator[Outside]:
    """Fail a test that connects to another host than this one, or starts a process."""
    _outside.seen.clear()
    _outside.watching = True
    yield _outside
    _outside.watching = False
    assert not _outside.seen, f"the test reached outside: {_outside.seen}"


@pytest.fixture
def llm() -> Iterator[ScriptedLLM]:
    """A scripted LLM."""
    with ScriptedLLM() as server:
        yield server


@pytest.fixture(scope="session")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    """The built-in embedder."""
    return MiniLM(tmp_path_factory.mktemp("model"), threads=1)


@pytest.fixture
def build(embedder: Embedder, tmp_path: Path) -> Callable[..., Engine]:
    """Make an engine for a provider's config, by default with the built-in embedder."""

    def make(config: dict[str, Any], *, embedder: Embedder = embedder, **settings: Any) -> Engine:
        return Engine(LlmSettings("openai", config, **settings), embedder, home=tmp_path / "mem0")

    return make


@pytest.fixture
def engine(llm: ScriptedLLM, build: Callable[..., Engine]) -> Engine:
    """An engine that asks the scripted LLM."""
    return build(llm.config)


def _is_local(address: object) -> bool:
    """Whether an address of any family stays on this machine."""
    host = address[0] if isinstance(address, tuple) else address
    if not isinstance(address, tuple) or host is None or host == "localhost":
        return True  # a path of a Unix socket, or no host at all
    try:
        return ipaddress.ip_address(str(host)).is_loopback
    except ValueError:
        return False
