"""`python -m bench.compaction`: how long anything waits while the embedded index is compacted.

Fills an index of its own with made-up points of one tenant and lets one thread search it and another sleep for a few
milliseconds again and again, before, while and after it is compacted. What the second waits for longer than it slept is
what every request of the process would wait for, whatever it does. Target: at most 100 ms.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final
from uuid import UUID

import numpy as np
import typer

from bench.serving import scratch_folder
from bench.timing import percentile
from service import clock
from service.filters.ast import EVERYTHING
from service.index.edge import EdgeIndex
from service.index.interface import Point, ScopedIndex
from service.index.questions import SparseTerms
from service.scope import Principal, Scope, SubjectKind, TenantId

TARGET_MS: Final = 100
_DIMENSIONS: Final = 384
_USERS: Final = 20
_EACH: Final = 500
_WORDS: Final = 14
_LIMIT: Final = 60
_NAP_SECONDS: Final = 0.002
_BEFORE_AND_AFTER_SECONDS: Final = 3.0
_TURNS: Final = 3


def main(
    points: Annotated[int, typer.Option(help="How many points to store.")] = 100_000,
    turns: Annotated[int, typer.Option(help="How many times to compact.")] = _TURNS,
) -> None:
    """Store, compact, and print one JSON document; milliseconds."""
    made = Made(points)
    with scratch_folder() as place:
        index = EdgeIndex(place / "index", dimensions=_DIMENSIONS, model="made-up")
        try:
            tenant = index.of(made.scope)
            for chunk in made.chunks():
                tenant.upsert(chunk)
            found = [turn(index, tenant, made) for _ in range(turns)]
        finally:
            index.close()
    print(json.dumps({"points": points, "target_ms": TARGET_MS, "turns": found}, indent=2))


class Made:
    """Made-up points of one tenant, and questions: vectors without an order, and words of which few are common."""

    def __init__(self, points: int) -> None:
        self.scope = Scope.of(Principal(TenantId(clock.new_id()), clock.new_id(), frozenset()))
        self._points = points
        self._random = np.random.default_rng(1)
        self._users = [clock.new_id() for _ in range(_USERS)]

    def chunks(self) -> Iterator[list[Point]]:
        """Yield them in parts."""
        for start in range(0, self._points, _EACH):
            yield [self._point(number) for number in range(start, min(start + _EACH, self._points))]

    def ask(self, tenant: ScopedIndex) -> None:
        """Search once."""
        tenant.search(self._vector(), self._terms(), EVERYTHING, _NoNames(), limit=_LIMIT)

    def _point(self, number: int) -> Point:
        at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
        user: UUID = self._users[number % _USERS]
        return Point(clock.new_id(), 1, self._vector(), self._terms(), at, at, user_id=user, tokens=[number % _USERS])

    def _vector(self) -> np.ndarray:
        return self._random.standard_normal(_DIMENSIONS).astype(np.float32)

    def _terms(self) -> SparseTerms:
        ids = np.unique(self._random.zipf(1.2, _WORDS) % 2**31)
        return SparseTerms([int(one) for one in ids], [1.0] * len(ids))


class _NoNames:
    """The answers for filters that name nothing (`Lookup`)."""

    def subject(self, kind: SubjectKind, name: str) -> UUID | None:
        """There is none."""
        return None

    def token(self, text: str) -> int:
        """There is none, so any will do."""
        return 0


def turn(index: EdgeIndex, tenant: ScopedIndex, made: Made) -> dict[str, float]:
    """Compact once and return what was waited for meanwhile and around."""
    ending = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        searching = pool.submit(timed, lambda: made.ask(tenant), ending)
        napping = pool.submit(timed, lambda: time.sleep(_NAP_SECONDS), ending)
        with stopping(ending):
            time.sleep(_BEFORE_AND_AFTER_SECONDS)
            began = time.perf_counter()
            index.compact()
            seconds = time.perf_counter() - began
            time.sleep(_BEFORE_AND_AFTER_SECONDS)
        searches, naps = searching.result(), napping.result()
    return {
        "compaction_s": round(seconds, 1),
        "search_p50_ms": round(percentile(searches, 0.5) * 1000, 1),
        "search_p99_ms": round(percentile(searches, 0.99) * 1000, 1),
        "search_most_ms": round(max(searches) * 1000, 1),
        "everything_waited_ms": round((max(naps) - _NAP_SECONDS) * 1000, 1),
    }


@contextmanager
def stopping(event: threading.Event) -> Iterator[None]:
    """Set the event when the block is left, however it is."""
    try:
        yield
    finally:
        event.set()


def timed(work: Callable[[], None], ending: threading.Event) -> list[float]:
    """Do it again and again until the end and return the seconds of each time."""
    seconds = []
    while not ending.is_set():
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return seconds


if __name__ == "__main__":
    typer.run(main)
