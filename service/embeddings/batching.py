"""Merges the embedding calls of many threads into batches."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future

from service.embeddings.embedder import Embedder, EmbedderClosed, Matrix, Vector


class Batched:
    """An `Embedder` around another, whose `embed_query` calls from different threads run together.

    A call that finds the worker idle runs at once; calls that come while a batch runs are the next batch (at most
    `max_batch` of them). `max_wait` is how many seconds an idle worker waits for company before it runs a batch that
    is not full; 0 does not wait. On two cores this does not raise throughput (the model is bound by arithmetic): it
    keeps the slowest of many concurrent calls near the median. Meant for an embedder in this process: calls to a
    remote provider would queue up behind each other. It does not close the embedder that it wraps.
    """

    def __init__(self, embedder: Embedder, *, max_batch: int = 32, max_wait: float = 0) -> None:
        if max_batch < 1:
            raise ValueError("max_batch must be at least 1.")
        self._embedder = embedder
        self._max_batch = max_batch
        self._max_wait = max_wait
        self._waiting: deque[tuple[str, Future[Vector]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._worker = threading.Thread(target=self._work, name="memvault-embed", daemon=True)
        self._worker.start()

    @property
    def name(self) -> str:
        """See `Embedder`."""
        return self._embedder.name

    @property
    def dimensions(self) -> int:
        """See `Embedder`."""
        return self._embedder.dimensions

    def embed_query(self, text: str) -> Vector:
        """See `Embedder`. Raises what this text alone would raise, and `EmbedderClosed` after `close`."""
        result: Future[Vector] = Future()
        with self._changed:
            self._refuse_if_closed()
            self._waiting.append((text, result))
            self._changed.notify()
        return result.result()

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        """See `Embedder`. Runs in the calling thread: it is a batch already. `EmbedderClosed` after `close`."""
        with self._changed:
            self._refuse_if_closed()
        return self._embedder.embed_documents(texts)

    def close(self) -> None:
        """Answer the calls that wait, then end the worker. May be called more than once."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._worker.join()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise EmbedderClosed("The embedder is closed because the service is shutting down; try again later.")

    def _work(self) -> None:
        while batch := self._next_batch():
            self._answer(batch)

    def _next_batch(self) -> list[tuple[str, Future[Vector]]]:
        """Wait for calls and take them; empty once closed and nothing waits."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            until = time.monotonic() + self._max_wait
            while len(self._waiting) < self._max_batch and not self._closed:
                if not self._changed.wait(until - time.monotonic()):
                    break
            return [self._waiting.popleft() for _ in range(min(self._max_batch, len(self._waiting)))]

    def _answer(self, batch: list[tuple[str, Future[Vector]]]) -> None:
        if len(batch) > 1:
            try:
                vectors = self._embedder.embed_documents([text for text, _ in batch])
            except Exception:
                # Some text spoiled the batch. Each runs again alone below, so that only its own caller gets the error.
                pass
            else:
                for (_, result), vector in zip(batch, vectors, strict=True):
                    result.set_result(vector.copy())  # a view would keep the whole batch alive
                return
        for text, result in batch:
            try:
                vector = self._embedder.embed_query(text)
            except BaseException as error:
                result.set_exception(error)
            else:
                result.set_result(vector)
