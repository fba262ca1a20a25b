"""Where checkpoints go outside the database: a folder, standard output, object storage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from service.audit.checkpoints import Checkpoint
from service.errors import MemvaultError


class SinkUnavailable(MemvaultError):
    """A sink does not take checkpoints at present; they are delivered later."""

    code = "audit_sink_unavailable"


class Sink(Protocol):
    """A place that takes checkpoints, each at least once and in order."""

    @property
    def name(self) -> str:
        """What the database calls the sink, to remember how far it is."""

    @property
    def readable(self) -> bool:
        """Whether it can be asked what it has, apart from failures."""

    def deliver(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Take checkpoints durably before returning. One that is there already is no error.

        Raises:
            SinkUnavailable: with some of them perhaps taken, also when another one of the same number is there, which
                stays.
        """

    def is_empty(self) -> bool:
        """Tell whether there is no checkpoint at all, where that can be seen at a glance; else False."""

    def newest(self, *, beyond: int) -> Checkpoint | None:
        """Return the newest checkpoint here if its number is above `beyond`, else None.

        Raises:
            SinkUnavailable: when it cannot be told.
        """
