"""The periodic sweep of retention: a run for each tenant, taken up again after a crash; what has ended is removed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from service import clock
from service.memories.housekeeping import forget_old_events, forget_stray_messages
from service.queue.tasks import Handler, Queue
from service.retention.runs import Runs
from service.scope import Permission, Scope, TenantId, installation_caller
from service.settings import Settings
from service.storage.database import Database

#: The task that carries out the run of one tenant.
RETAIN: Final = "retain"
#: The periodic task that begins one for each.
RETENTION: Final = "retention"
_STRAY_AT_ONCE: Final = 1000
_log: Final = logging.getLogger("memvault.retention")


class RetentionJobs:
    """What the worker does of retention. Each tenant's job runs once at a time, however many workers there are."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        runs: Runs,
        queue: Queue,
        tenant_ids: Callable[[], Sequence[TenantId]],
    ) -> None:
        self._settings = settings
        self._database = database
        self._runs = runs
        self._queue = queue
        self._tenant_ids = tenant_ids

    def handlers(self) -> Mapping[str, Handler]:
        """Return the handlers by task name."""
        return {RETAIN: self.run}

    def periodic(self) -> Mapping[str, tuple[str, Callable[[int], None]]]:
        """Return the periodic work by task name, with when it runs, as cron says it."""
        return {RETENTION: (self._settings.retention.sweep, self.sweep)}

    def defer(self, scope: Scope) -> None:
        """Put the tenant's run into the queue."""
        with self._database.transaction(scope) as connection:
            arguments = {"tenant_id": str(scope.tenant_id)}
            self._queue.defer(connection, RETAIN, arguments, lock=f"{RETAIN}:{scope.tenant_id}")

    def sweep(self, timestamp: int) -> None:
        """Begin a run for each tenant. One that fails keeps no other from its own."""
        for tenant_id in self._tenant_ids():
            try:
                caller = installation_caller(tenant_id, frozenset({Permission.RETENTION_MANAGE}))
                self._runs.start(caller, caller.scope, dry=False)
                self.defer(caller.scope)
            except Exception as error:
                _log.error("a retention run could not be begun", extra={"error": type(error).__name__}, exc_info=error)

    def run(self, tenant_id: str) -> None:
        """Carry out what runs of a tenant are under way, then remove the reports and events that are old enough.

        Messages whose event is gone leave first: whatever becomes of the runs, an erasure does not find them.
        """
        scope = installation_caller(TenantId(UUID(tenant_id))).scope
        left = _STRAY_AT_ONCE
        while left == _STRAY_AT_ONCE:
            with self._database.transaction(scope) as connection:
                left = forget_stray_messages(connection, limit=_STRAY_AT_ONCE)
        for run_id in self._runs.unfinished(scope):
            self._runs.go_on(scope, run_id)
        moment, settings = clock.now(), self._settings.retention
        self._runs.forget_old(scope, before=moment - timedelta(days=settings.run_days))
        if settings.event_days is not None:
            with self._database.transaction(scope) as connection:
                forget_old_events(connection, before=moment - timedelta(days=settings.event_days))
