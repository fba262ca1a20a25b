"""Several workers that are started and stopped as one, each with jobs of its own."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from service.queue.tasks import Worker


class Workers:
    """Workers of different queues, so that jobs of one never wait for those of another."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = workers

    def start(self) -> None:
        """Begin to work in the background."""
        for worker in self._workers:
            worker.start()

    @property
    def left(self) -> int:
        """How many jobs still ran here when `stop` returned; the queue has them back."""
        return sum(worker.left for worker in self._workers)

    def hurry(self) -> None:
        """Give jobs that run no more time to end; safe within a signal handler."""
        for worker in self._workers:
            worker.hurry()

    def stop(self) -> None:
        """Stop all of them at the same time, as each stops: together they take as long as the slowest."""
        with ThreadPoolExecutor(len(self._workers)) as threads:
            list(threads.map(Worker.stop, self._workers))
