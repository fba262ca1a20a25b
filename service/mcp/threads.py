"""Runs synchronous actions in worker threads, each within a time limit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import anyio
import anyio.abc
import anyio.to_thread

from service import clock

T = TypeVar("T")
#: Told every so often, with the seconds since the beginning, that an action still goes on.
Tell = Callable[[float], Awaitable[None]]


class TimeLimitReached(Exception):
    """An action took too long. It may still be going on, and what it writes may still be written."""


class Threads:
    """The way from the event loop to the actions.

    A caller stops waiting at the time limit, or when it is cancelled; the thread goes on to its end and keeps its place
    in the pool until then, so that slow actions cannot pile up threads. What still waits for a thread by then is not
    started any more.
    """

    def __init__(self, *, seconds: float, tell_every: float = 1.0) -> None:
        self.seconds = seconds
        self._tell_every = tell_every
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

    async def run(self, action: Callable[[], T], *, tell: Tell | None = None) -> T:
        """Run an action in a thread and return its result, or raise its error; `tell` hears while it goes on.

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
        try:
            with anyio.move_on_after(self.seconds):
                await self._wait(done, tell)
        finally:
            if not done.is_set():
                waiting.cancel()
        if errors:
            raise errors[0]
        if not results:
            raise TimeLimitReached
        return results[0]

    async def _wait(self, done: anyio.Event, tell: Tell | None) -> None:
        if tell is not None:
            began = clock.monotonic()
            while not done.is_set():
                with anyio.move_on_after(self._tell_every):
                    await done.wait()
                if not done.is_set():
                    await tell(clock.monotonic() - began)
        await done.wait()
