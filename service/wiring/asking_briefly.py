"""Asks a store that may hang, so that whoever wants to know how it stands waits for a moment only."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from service import clock
from service.errors import IndexUnavailable, Unavailable

#: Less than a probe waits for, together with what else it asks.
_SECONDS: Final = 1.0


class BrieflyAsked:
    """A question in a thread of its own. One is asked at a time, and all who wait share its answer."""

    def __init__(
        self,
        question: Callable[[], object],
        *,
        store: str = "the index",
        away: type[Unavailable] = IndexUnavailable,
        seconds: float = _SECONDS,
    ) -> None:
        self._question = question
        self._store = store
        self._away = away
        self._seconds = seconds
        self._lock = threading.Lock()
        self._asked: tuple[float, Future[None]] | None = None

    def ask(self) -> None:
        """Return once the store has answered. One that was asked long ago already is not waited for.

        Raises:
            Unavailable: of the kind that was named, when it does not answer in time; else what the question raises.
        """
        self.begin()()

    def begin(self) -> Callable[[], None]:
        """Ask, and return what waits for the answer, as `ask` does: others can be asked meanwhile."""
        with self._lock:
            if self._asked is None or self._asked[1].done():
                asked = clock.monotonic(), Future[None]()
                threading.Thread(target=self._run, args=(asked[1],), name="memvault-ask", daemon=True).start()
                # Once it is being asked: where no thread was to be had nobody would ever answer.
                self._asked = asked
            since, answer = self._asked

        def wait() -> None:
            try:
                answer.result(max(0.0, since + self._seconds - clock.monotonic()))
            except TimeoutError:
                raise self._away(f"{self._store} does not answer in time") from None

        return wait

    def _run(self, answer: Future[None]) -> None:
        try:
            self._question()
        except BaseException as error:
            answer.set_exception(error)
        else:
            answer.set_result(None)
