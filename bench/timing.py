"""Times one call again and again from one or many threads."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

Call = Callable[[int], object]


class Refused(Exception):
    """A call that was answered, but not with what was asked for; the message is one of few, and counted by."""


@dataclass
class Sample:
    """The latencies in seconds of the calls that succeeded, the errors by kind, and the seconds that all took.

    `cpu` is processor time, by whatever clock the sample was taken with.
    """

    latencies: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    elapsed: float = 0.0
    cpu: float = 0.0


def percentile(values: list[float], share: float) -> float:
    """Return the smallest value that `share` of the values do not exceed; NaN without values."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


def sample(
    call: Call,
    numbers: Iterator[int],
    *,
    callers: int,
    seconds: float,
    cpu: Callable[[], float] = time.process_time,
) -> Sample:
    """Call from so many threads for so many seconds, each call with a number of its own.

    The first call of each thread is neither timed nor counted. One that is under way at the end is waited for and is.
    When this is interrupted, the threads have ended.
    """
    taken = Sample()
    lock = threading.Lock()
    ready = threading.Barrier(callers + 1)
    interrupted = threading.Event()

    def number() -> int:
        with lock:
            return next(numbers)

    def work() -> None:
        latencies: list[float] = []
        errors: Counter[str] = Counter()
        _once(call, number(), [], Counter())
        with suppress(threading.BrokenBarrierError):
            ready.wait()
        until = time.perf_counter() + seconds
        while time.perf_counter() < until and not interrupted.is_set():
            _once(call, number(), latencies, errors)
        with lock:
            taken.latencies += latencies
            taken.errors += errors

    threads = [threading.Thread(target=work) for _ in range(callers)]
    try:
        for thread in threads:
            thread.start()
        ready.wait()
        began, had = time.perf_counter(), cpu()
        for thread in threads:
            thread.join()
    except BaseException:
        # Who interrupts cleans up next: nobody may call any more, nor wait for what does not begin.
        interrupted.set()
        ready.abort()
        for thread in threads:
            if thread.is_alive():
                thread.join()
        raise
    taken.elapsed = time.perf_counter() - began
    taken.cpu = max(0.0, cpu() - had)
    return taken


def _once(call: Call, number: int, latencies: list[float], errors: Counter[str]) -> None:
    began = time.perf_counter()
    try:
        call(number)
    except Refused as error:
        errors[str(error)] += 1
    except Exception as error:
        errors[type(error).__name__] += 1
    else:
        latencies.append(time.perf_counter() - began)
