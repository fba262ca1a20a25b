"""Runs synchronous actions in worker threads, each within a time limit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
import anyio.abc
import anyio.to_thread

T = TypeVar("T")


class TimeLimitReached(Exception):
    """An action took too long. It may still be going on, and what it writes may still be written."""


class Threads:
    """The way from the event loop to the actions.

    A caller stops waiting at the time limit; the thread goes on to its end and keeps its place in the pool until then,
    so that slow actions cannot pile up threads. What still waits for a thread at the limit is not started any more.
    """

    def __init__(self, *, seconds: float) -> None:
        self.seconds = seconds
        self._tasks: anyio.abc.TaskGroup | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Accept work until the context ends, which waits for actions that are under way."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            try:
                yield
            finally:
                self._tasks = None
                tasks.cancel_scope.cancel()

    async def run(self, action: Callable[[], T]) -> T:
        """Run an action in a thread and return its result, or raise its error.

        Raises:
            TimeLimitReached: when it did not end in time.
        """
        if self._tasks is None:
            raise RuntimeError("the threads are not open")
        waiting = anyio.CancelScope()
        done = anyio.Event()
        results: list[T] = []
        errors: list[Exception] = []

        async def carry() -> None:
            with waiting:
                try:
                    # Shielded by anyio from its first moment in a thread on: cancelling only ends the wait for one.
                    results.append(await anyio.to_thread.run_sync(action))
                except Exception as error:
                    errors.append(error)
            done.set()

        self._tasks.start_soon(carry)
        with anyio.move_on_after(self.seconds):
            await done.wait()
        if errors:
            raise errors[0]
        if not results:
            waiting.cancel()
            raise TimeLimitReached
        return results[0]
