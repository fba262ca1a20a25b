"""Knows whether the index answers: a call that waited in vain spares all others the wait."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from service import clock
from service.errors import IndexUnavailable

#: Seconds after which a call that fails was not refused: nobody answered it.
_IN_VAIN: Final = 0.8
#: Seconds, beyond twice what the call waited, until the next one may find out: the upkeep asks sooner.
_REST: Final = 3.0
#: Seconds after which it may be asked again: the upkeep knows by then.
_RETRY_AFTER: Final = 5


class Answering:
    """Whether an index answers calls of one kind, to all threads of the process.

    One that is away refuses at once, and costs nobody anything. One that hangs would keep every thread for as long as
    a call may take: after the first, `check` tells the others, until a call is answered or some seconds are over.
    One that is not `remote` is slow at times and never silent.
    """

    def __init__(self, *, remote: bool = True) -> None:
        self._remote = remote
        self._answered = -math.inf
        self._rests_until = -math.inf

    @property
    def rests(self) -> bool:
        """Whether a call waited in vain and none was answered since."""
        return clock.monotonic() < self._rests_until

    def check(self) -> None:
        """Return unless the index hangs; costs nothing.

        Raises:
            IndexUnavailable: for some seconds after a call waited in vain.
        """
        if self.rests:
            raise IndexUnavailable("the index does not answer; try again in some seconds", retry_after=_RETRY_AFTER)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Make a call of the index inside the block, and keep in mind how it ends."""
        began = clock.monotonic()
        try:
            yield
        except IndexUnavailable:
            self.failed(began)
            raise
        self.answered()

    def failed(self, began: float) -> None:
        """Hear that a call has failed that began then, of this kind or of another of the same index."""
        # Where one was answered meanwhile, this one asked for too much, and the index does not hang.
        if self._remote and waited_in_vain(began) and self._answered < began:
            at = clock.monotonic()
            self._rests_until = at + 2 * (at - began) + _REST

    def answered(self) -> None:
        """Hear that the index has answered."""
        self._answered, self._rests_until = clock.monotonic(), -math.inf


def waited_in_vain(began: float) -> bool:
    """Tell whether a call that has failed now, and began then, waited for an answer and got none."""
    return clock.monotonic() - began >= _IN_VAIN
