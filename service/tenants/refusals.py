"""Writes down that a limit was reached: at once the first time, then counted, so that a flood cannot fill the trail."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final

from service import clock
from service.audit.details import LimitReached
from service.audit.events import AuditEvent, Outcome
from service.audit.trail import Trail
from service.errors import RecordUnavailable
from service.observability.metrics import LIMITS_MET
from service.scope import Caller, Limit, TenantId
from service.storage.database import Database

#: Seconds between two rows for the same limit of the same tenant, in each process.
EVERY: Final = 10.0
_MOST: Final = 10_000


@dataclass(slots=True)
class _Counted:
    """Refusals since the last row, and the last one who was refused."""

    caller: Caller
    count: int = 0
    told_at: float = float("-inf")


class Refusals:
    """Counts refusals by tenant and limit."""

    def __init__(self, database: Database, trail: Trail) -> None:
        self._database = database
        self._trail = trail
        self._lock = threading.Lock()
        self._counted: dict[tuple[TenantId, Limit], _Counted] = {}

    def note(self, caller: Caller, limit: Limit) -> None:
        """Count a refusal, and write it down unless one was written moments ago.

        Raises:
            RecordUnavailable: when the trail cannot be written; the refusal stays counted.
        """
        LIMITS_MET.labels(limit.value).inc()
        key = (caller.principal.tenant_id, limit)
        with self._lock:
            counted = self._counted.setdefault(key, _Counted(caller))
            counted.caller, counted.count = caller, counted.count + 1
        self._tell(key)

    def flush(self, *, at_once: bool = False) -> None:
        """Write down what has been counted long enough, or all at once, and forget who has been quiet.

        Raises:
            RecordUnavailable: when the trail cannot be written; what is not written stays counted.
        """
        with self._lock:
            keys = list(self._counted)
        for key in keys:
            self._tell(key, at_once=at_once)
        with self._lock:
            if len(self._counted) > _MOST:
                self._counted = {key: one for key, one in self._counted.items() if one.count}

    def _tell(self, key: tuple[TenantId, Limit], *, at_once: bool = False) -> None:
        with self._lock:
            counted = self._counted.get(key)
            moment = clock.monotonic()
            if counted is None or not counted.count or (moment - counted.told_at < EVERY and not at_once):
                return
            caller, count, before = counted.caller, counted.count, counted.told_at
            counted.count, counted.told_at = 0, moment
        try:
            with self._database.transaction(caller.scope) as connection:
                self._trail.write(
                    connection,
                    caller,
                    AuditEvent.LIMIT_REACHED,
                    outcome=Outcome.REFUSED,
                    detail=LimitReached(limit=key[1], count=count),
                )
        except RecordUnavailable:
            with self._lock:
                counted.count, counted.told_at = counted.count + count, before
            raise
