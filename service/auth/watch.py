"""Hears of changes to credentials: one small question to the database an interval, however many requests there are."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from service import clock
from service.scope import Principal, TenantId
from service.storage.database import Database
from service.tenants.actions import versions, versions_sum
from service.ticking import Ticker

#: Questions in the time that an answer is trusted for, so that one may fail or be late.
_QUESTIONS: int = 2


class CredentialWatch:
    """Knows the version of each tenant's credentials as it was a moment ago.

    It asks only while somebody wants to know, so that an idle service leaves its database alone. When the database
    does not answer, nothing is confirmed any more, and whoever wants to know has to look for itself.
    """

    def __init__(self, database: Database, *, trusted_seconds: float) -> None:
        """Take for how long an answer counts."""
        self._database = database
        self._trusted = trusted_seconds
        self._lock = threading.Lock()
        self._sum: tuple[int, int] | None = None
        self._versions: Mapping[TenantId, int] = {}
        self._asked_at = float("-inf")
        self._wanted = False
        self._ticker = Ticker("credential-watch", trusted_seconds / _QUESTIONS, self._look_if_wanted)

    def start(self) -> None:
        """Begin to ask in the background."""
        self._ticker.start()

    def stop(self) -> None:
        """Ask no more."""
        self._ticker.stop()

    def confirms(self, principal: Principal) -> bool:
        """Tell whether nothing has changed about the credentials of the principal's tenant since it was read."""
        with self._lock:
            self._wanted = True
            fresh = clock.monotonic() - self._asked_at < self._trusted
            return fresh and self._versions.get(principal.tenant_id) == principal.version

    def look(self) -> None:
        """Ask the database now.

        Raises:
            RecordUnavailable: when it does not answer.
        """
        began = clock.monotonic()
        with self._database.tenant_blind() as connection:
            found = versions_sum(connection)
            # Of one snapshot or not: what changes in between changes the sum that the next look finds.
            known = self._versions if found == self._sum else versions(connection)
        with self._lock:
            self._sum, self._versions, self._asked_at = found, known, began

    def _look_if_wanted(self) -> None:
        with self._lock:
            wanted, self._wanted = self._wanted, False
        if wanted:
            self.look()
