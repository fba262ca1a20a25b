"""Starts the embedded server again when it has died under a service that goes on using it."""

from __future__ import annotations

import logging
import threading
from typing import Final

from service.storage.embedded.supervisor import EmbeddedPostgres

_LOOK_EVERY: Final = 1.0
_log = logging.getLogger("memvault.postgres")


class Watch:
    """A thread that looks every second whether the server lives, whatever fails meanwhile: without it nothing is served
    until a restart."""

    def __init__(self, postgres: EmbeddedPostgres) -> None:
        self._postgres = postgres
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memvault-postgres", daemon=True)
        self._failing = False

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, after a start that is under way; call it before the server is stopped."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(_LOOK_EVERY):
            try:
                if self._postgres.lives():
                    continue
                self._postgres.start()
            except Exception as error:
                # A full disk, most likely, which fails in many ways: it is tried again until there is room.
                if not self._failing:
                    _log.error("the embedded Postgres does not start", extra={"error": type(error).__name__})
                self._failing = True
            else:
                _log.warning("the embedded Postgres had ended and was started again")
                self._failing = False
