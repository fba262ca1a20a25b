"""The way from the event loop to the actions: results, errors, the time limit, and the bound that it keeps."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import anyio
import anyio.to_thread
import pytest

from service.mcp.threads import Threads, TimeLimitReached

pytestmark = [pytest.mark.unit, pytest.mark.anyio]


@pytest.fixture
def anyio_backend() -> str:
    """The service runs on asyncio."""
    return "asyncio"


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What slow actions wait for; open at the end, so that no thread stays behind."""
    event = threading.Event()
    yield event
    event.set()


async def test_results_and_errors_come_back() -> None:
    threads = Threads(seconds=5)
    async with threads.open():
        assert await threads.run(lambda: 7) == 7
        assert await threads.run(lambda: None) is None
        with pytest.raises(KeyError):
            await threads.run(lambda: {}["x"])


async def test_a_slow_action_keeps_its_place_and_what_waits_is_not_started(gate: threading.Event) -> None:
    anyio.to_thread.current_default_thread_limiter().total_tokens = 1
    started: list[str] = []
    threads = Threads(seconds=0.2)

    def slow() -> None:
        started.append("slow")
        gate.wait(10)

    async with threads.open():
        with pytest.raises(TimeLimitReached):
            await threads.run(slow)
        with pytest.raises(TimeLimitReached):
            await threads.run(lambda: started.append("too many"))
        gate.set()
        with anyio.fail_after(5):
            while "next" not in started:
                try:
                    await threads.run(lambda: started.append("next"))
                except TimeLimitReached:
                    continue
    assert started == ["slow", "next"]


async def test_what_is_cancelled_while_it_waits_is_never_started(gate: threading.Event) -> None:
    anyio.to_thread.current_default_thread_limiter().total_tokens = 1
    started: list[str] = []
    threads = Threads(seconds=5)
    async with threads.open(), anyio.create_task_group() as tasks:
        tasks.start_soon(threads.run, lambda: gate.wait(10))
        await anyio.sleep(0.1)
        with anyio.move_on_after(0.2) as given_up:
            await threads.run(lambda: started.append("cancelled"))
        assert given_up.cancelled_caught
        gate.set()
        await threads.run(lambda: started.append("next"))
    assert started == ["next"]


async def test_who_waits_is_told_that_it_goes_on(gate: threading.Event) -> None:
    heard: list[float] = []

    async def tell(seconds: float) -> None:
        heard.append(seconds)
        if len(heard) == 3:
            gate.set()

    threads = Threads(seconds=5, tell_every=0.05)
    async with threads.open():
        assert await threads.run(lambda: gate.wait(10), tell=tell)
        assert await threads.run(lambda: 7, tell=tell) == 7
    assert len(heard) == 3
    assert heard == sorted(set(heard))


async def test_a_client_that_reads_nothing_does_not_outlast_the_limit() -> None:
    async def tell(seconds: float) -> None:
        await anyio.sleep_forever()

    threads = Threads(seconds=0.3, tell_every=0.05)
    ended = threading.Event()
    async with threads.open():
        with pytest.raises(TimeLimitReached), anyio.fail_after(5):
            await threads.run(lambda: ended.wait(1), tell=tell)
        ended.set()


async def test_closing_waits_for_what_is_under_way(gate: threading.Event) -> None:
    ended: list[bool] = []

    def slow() -> None:
        gate.wait(10)
        ended.append(True)

    threads = Threads(seconds=0.1)
    async with threads.open():
        with pytest.raises(TimeLimitReached):
            await threads.run(slow)
        threading.Timer(0.2, gate.set).start()
    assert ended == [True]
    with pytest.raises(RuntimeError):
        await threads.run(lambda: None)
