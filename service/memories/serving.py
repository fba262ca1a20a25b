"""The embedding model that serves with the index that is of it, and the pair that is being filled beside them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from service.embeddings.embedder import Embedder, Vector
from service.errors import IndexUnavailable
from service.index.interface import Index
from service.memories.answering import Answering

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True, eq=False)
class Serving:
    """A model and the index of its vectors: what is embedded by the one is looked for in the other only."""

    embedder: Embedder
    index: Index
    generation: int = 1


class Generations:
    """The pair that serves now and the one that will. Who embeds and searches takes the pair once and keeps to it.

    `remote`: their indexes are on a server, which may be silent.
    """

    def __init__(self, serving: Serving, *, remote: bool = False) -> None:
        self._serving = serving
        self._retired: list[Serving] = []
        #: The pair that is being filled by this process.
        self.filling: Serving | None = None
        #: Whether a model is being brought in, by this process or by another.
        self.changing = threading.Event()
        #: Set from when the pair that is being filled is compared with the record until it serves. What is written to
        #: what was compared already reaches it by the outbox alone, which forgets nothing meanwhile.
        self.comparing = threading.Event()
        #: Held while the index is written and while another pair takes over.
        self.lock = threading.RLock()
        #: Whether the index that serves answers who asks it something, and who writes to it.
        self.reads, self.writes = (Answering(remote=remote) for _ in range(2))

    @property
    def serving(self) -> Serving:
        """The pair that serves."""
        return self._serving

    @property
    def embedder(self) -> Embedder:
        """The model that serves."""
        return self._serving.embedder

    def question(self, text: str) -> Question:
        """Return what asks the index for a text."""
        return Question(self, text)

    def switch(self, following: Serving) -> Serving:
        """Let another pair serve; return the one that did. Its index is still open for the searches under way."""
        with self.lock:
            old, self._serving = self._serving, following
            if self.filling is following:
                self.filling = None
            self._retired.append(old)
        return old

    def close_retired(self, close: Callable[[Serving], None]) -> None:
        """Close the indexes that served before."""
        with self.lock:
            retired, self._retired = self._retired, []
        for one in retired:
            close(one)

    def close(self) -> None:
        """Close every index that is open."""
        for one in (*self._retired, self.filling, self._serving):
            if one is not None:
                one.index.close()


class Question:
    """A text that is looked for: embedded by the model that serves, and anew when another one takes over meanwhile."""

    def __init__(self, generations: Generations, text: str) -> None:
        self._generations = generations
        self._text = text
        self._of: Serving | None = None
        self._vector: Vector | None = None

    def ask(self, search: Callable[[Index, Vector], _Answer]) -> _Answer:
        """Return what a search of the index that serves finds.

        Raises:
            IndexUnavailable, EmbeddingUnavailable: when the index or the model does not answer.
        """
        while True:
            self._generations.reads.check()
            serving = self._generations.serving
            if self._vector is None or serving is not self._of:
                self._of, self._vector = serving, serving.embedder.embed_query(self._text)
            try:
                with self._generations.reads.asking():
                    return search(serving.index, self._vector)
            except IndexUnavailable:
                # It may have been closed since, for another one serves.
                if serving is self._generations.serving:
                    raise
