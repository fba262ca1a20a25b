"""The services as the HTTP face sees them: on their way, there, or failed; requests never wait for them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from service import clock
from service.errors import ConfigurationError, StillStarting, Unavailable
from service.wiring import Part, Services, check_database

_log = logging.getLogger("memvault.api")

#: What `/readyz` names before the services are there.
_PARTS: Final = ("record", "index", "embeddings", "extraction", "worker")
#: Anybody may ask for readiness, so the stores are asked once in this many seconds at most.
_FRESH_SECONDS: Final = 0.5
#: Seconds for which what was known serves while they are asked anew: a store that hangs is to keep one probe waiting.
_OLD_SECONDS: Final = 5.0


class Opening:
    """Holds the services, or opens them in a thread of its own while the socket already answers."""

    def __init__(
        self,
        services: Services | Callable[[], Services],
        *,
        on_failure: Callable[[BaseException], None] | None = None,
    ) -> None:
        self._open = None if isinstance(services, Services) else services
        self._services = services if isinstance(services, Services) else None
        self._on_failure = on_failure
        self._failure: str | None = None
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        self._started = False
        self._known: tuple[float, list[Part]] | None = None

    def start(self) -> None:
        """Begin to open the services, once."""
        with self._lock:
            if self._started or self._open is None:
                return
            self._started = True
        threading.Thread(target=self._run, args=(self._open,), name="memvault-opening", daemon=True).start()

    def opened(self, services: Services) -> None:
        """Hear of services that were opened elsewhere."""
        self._services = services

    def services(self) -> Services:
        """Return the services.

        Raises:
            StillStarting: while they are being opened.
            Unavailable: when opening them failed, or the database was found to be another one than it was.
        """
        if self._services is not None:
            # It may have been restored under the running service: what was erased since is in it again then.
            check_database(self._services)
            return self._services
        if self._failure is not None:
            raise Unavailable("the service could not start; its log says why", retry_after=30)
        raise StillStarting("the service is starting; try again in a moment")

    def find(self) -> Services | None:
        """Return the services, or None while they are not there."""
        return self._services

    def parts(self) -> list[Part]:
        """Return every part with its state, at most half a second old, or a few while somebody else is asking."""
        if self._services is None:
            state = "starting" if self._failure is None else "failed"
            return [Part(name, state, self._failure, needed=True) for name in _PARTS]
        known = self._known
        if known is not None and (age := clock.monotonic() - known[0]) <= _OLD_SECONDS:
            if age <= _FRESH_SECONDS or not self._asking.acquire(blocking=False):
                return known[1]
        else:
            self._asking.acquire()
        try:
            # From when they are known: whoever waited meanwhile does not ask anew.
            if self._known is None or self._known is known:
                parts = self._services.readiness()
                self._known = (clock.monotonic(), parts)
            return self._known[1]
        finally:
            self._asking.release()

    def _run(self, open_services: Callable[[], Services]) -> None:
        try:
            self._services = open_services()
        except BaseException as error:
            # Only our own error is known to be fit for the eyes of whoever asks for readiness.
            self._failure = error.detail if isinstance(error, ConfigurationError) else "could not be opened"
            _log.error("the services could not be opened", extra={"error": type(error).__name__})
            if self._on_failure is not None:
                self._on_failure(error)
