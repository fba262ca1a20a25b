"""Checkpoints on standard output, one JSON object a line: only what is signed, since collectors cut long lines."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TextIO

from service.audit.checkpoints import Checkpoint
from service.audit.sinks import SinkUnavailable


class StdoutSink:
    """Writes lines to a stream."""

    name = "stdout"
    readable = False

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout

    def deliver(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Write the lines and flush."""
        try:
            for checkpoint in checkpoints:
                self._stream.write(replace(checkpoint, seals=()).line().decode() + "\n")
            self._stream.flush()
        except (OSError, ValueError) as error:
            raise SinkUnavailable(f"standard output takes no checkpoints ({type(error).__name__})") from None

    def is_empty(self) -> bool:
        """Return False: what was written cannot be read back."""
        return False

    def newest(self, *, beyond: int) -> None:
        """Return None: what was written cannot be read back."""
