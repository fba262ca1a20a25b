"""What the worker can do, by task name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, select

from service import clock
from service.errors import MemvaultError
from service.memories.changing import ChangeUnderWay, ModelChange
from service.memories.entities import Entities
from service.memories.events import EXTRACT, any_lost_events
from service.memories.extraction import Extractions
from service.memories.housekeeping import any_old_keys, forget_old_keys
from service.memories.indexing import Indexing
from service.memories.reviews import Reviews
from service.memories.rewording import REWORD, Rewording
from service.portability.exports import Exports
from service.queue.tasks import Handler, Queue
from service.retention.erasures import ERASE
from service.retention.work import ErasureWork
from service.scope import Scope, TenantId, service_principal
from service.storage.database import Database
from service.storage.pipelining import MAY_WAIT
from service.storage.quarantine import any_expired
from service.storage.tasks import Tasks, TaskState
from service.tenants.actions import Tenants
from service.tenants.quotas import Quotas
from service.tenants.subjects import any_erasing
from service.webhooks.announcing import DELIVER
from service.webhooks.delivering import Deliveries

#: The task that makes the whole index anew.
REBUILD_INDEX: Final = "rebuild_index"
#: The task that brings in another embedding model.
CHANGE_MODEL: Final = "change_embedding_model"
#: The task that goes round the tenants and finishes what was left undone.
SWEEP: Final = "sweep"
#: An event without a job is lost at once; this only keeps the sweep away from what changes just now.
_LOST_AFTER: Final = timedelta(minutes=2)
#: A plan that is made once for all tenants would be bad for most of them, and use no index of what is unfinished.
_FOR_THIS_TENANT: Final = "SET LOCAL plan_cache_mode = force_custom_plan"
_log: Final = logging.getLogger("memvault.jobs")


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a tenant's sweep: the condition that it has anything to do, and what does it."""

    due: ColumnElement[bool]
    work: Callable[[Scope], object]


class _Parts:
    """The parts by name, with one question for which have anything to do: built once a round, which costs as much."""

    def __init__(self, by_name: Mapping[str, _Part]) -> None:
        self.by_name = by_name
        self.question = select(*(part.due for part in by_name.values()))


class Jobs:
    """The handlers of queued work. Each may be run again after a crash."""

    def __init__(
        self,
        *,
        database: Database,
        tenants: Tenants,
        extractions: Extractions,
        entities: Entities,
        reviews: Reviews,
        indexing: Indexing,
        tasks: Tasks,
        erasures: ErasureWork,
        quotas: Quotas,
        deliveries: Deliveries,
        exports: Exports,
        change: ModelChange,
        rewording: Rewording,
        queue: Queue,
    ) -> None:
        self._database = database
        self._tenants = tenants
        self._extractions = extractions
        self._entities = entities
        self._reviews = reviews
        self._indexing = indexing
        self._tasks = tasks
        self._erasures = erasures
        self._quotas = quotas
        self._deliveries = deliveries
        self._exports = exports
        self._change = change
        self._rewording = rewording
        self._queue = queue

    def handlers(self) -> Mapping[str, Handler]:
        """Return the handlers by task name."""
        return {
            EXTRACT: self._extractions.run,
            REBUILD_INDEX: self.rebuild_index,
            CHANGE_MODEL: self.change_model,
            REWORD: self._rewording.run,
            ERASE: self._erasures.run,
            DELIVER: self._deliveries.deliver,
        }

    def periodic(self) -> Mapping[str, tuple[str, Callable[[int], None]]]:
        """Return the periodic work by task name, with when it runs, as cron says it."""
        return {SWEEP: ("* * * * *", self.sweep)}

    def rebuild_index(self, task_id: str) -> None:
        """Make the index anew from the record, telling how far it is through the task."""
        self._follow(UUID(task_id), self.rebuild)

    def change_model(self, task_id: str) -> None:
        """Bring in the embedding model that was asked for, telling how far it is through the task.

        Raises:
            ChangeUnderWay: while this process does so already; the task ends with the same job, when that comes back.
        """
        self._follow(UUID(task_id), self.change)

    def _follow(self, task: UUID, work: Callable[[Callable[[int], None]], int]) -> None:
        self._tasks.move(task, TaskState.RUNNING)
        try:
            done = work(lambda count: self._tasks.progress(task, count))
        except ChangeUnderWay:
            raise
        except MemvaultError as error:
            self._tasks.move(task, TaskState.FAILED, error=error.detail)
        except Exception as error:
            _log.error("a rebuild failed", extra={"error": type(error).__name__}, exc_info=error)
            self._tasks.move(
                task, TaskState.FAILED, error="unexpectedly; the log of the service tells the kind of error"
            )
        else:
            self._tasks.progress(task, done)
            self._tasks.move(task, TaskState.SUCCEEDED)

    def rebuild(self, progress: Callable[[int], None]) -> int:
        """Make the index anew and return how many memories it holds."""
        return self._indexing.rebuild(self._tenants.living_ids, progress=progress)

    def change(self, progress: Callable[[int], None]) -> int:
        """Bring in the embedding model that was asked for and return how many memories its index holds."""
        return self._change.run(progress)

    def sweep(self, timestamp: int) -> None:
        """Take up erasures, changes and events that are due or lost; forget old keys and requests and what expired."""
        parts: Mapping[str, Callable[[], object]] = {
            "erasures": self._erasures.resume,
            "change of the embedding model": self._resume_change,
            "changes of language": self._rewording.resume,
        }
        for name, part in parts.items():
            _do(part, name)
        tenant_parts = self._parts()
        for tenant_id in self._tenants.living_ids():
            self._sweep_tenant(tenant_id, tenant_parts)

    def _resume_change(self) -> None:
        """Go on with a change whose process has ended, and remove what earlier models left."""
        self._change.tidy()
        if not self._change.is_stale():
            return
        with self._database.tenant_blind() as connection:
            # One that waits, or whose worker has ended, comes back by itself.
            if not connection.execute(select(self._queue.has_any_job(CHANGE_MODEL))).scalar_one():
                task_id = self._tasks.start(connection, CHANGE_MODEL)
                self._queue.defer(connection, CHANGE_MODEL, {"task_id": str(task_id)})

    def sweep_tenant(self, tenant_id: TenantId) -> None:
        """Do the sweep for one tenant: the parts that have anything to do."""
        self._sweep_tenant(tenant_id, self._parts())

    def _sweep_tenant(self, tenant_id: TenantId, parts: _Parts) -> None:
        scope = Scope.of(service_principal(tenant_id))
        for name in self._due(scope, parts):
            _do(partial(parts.by_name[name].work, scope), name, tenant=str(tenant_id))

    def _parts(self) -> _Parts:
        by_name = {
            "erasures": _Part(any_erasing(), self._finish_erasures),
            "extractions": _Part(
                any_lost_events(_LOST_AFTER),
                lambda scope: self._extractions.retry_unfinished(scope, older_than=_LOST_AFTER),
            ),
            "webhooks": _Part(self._deliveries.any_to_sweep(), self._deliveries.sweep),
            "expired in quarantine": _Part(any_expired(clock.today()), self._reviews.forget_expired),
            "idempotency keys": _Part(any_old_keys(), self._forget_old_keys),
            "requests of exports": _Part(self._exports.any_old(), self._exports.forget_old),
            "usage": _Part(self._quotas.any_to_tidy(), self._tidy_usage),
        }
        return _Parts(by_name)

    def _due(self, scope: Scope, parts: _Parts) -> Sequence[str]:
        """Return the parts that have anything to do, by one question: most tenants are idle. All, if it fails."""
        try:
            with self._database.transaction(scope) as connection:
                connection.exec_driver_sql(_FOR_THIS_TENANT, execution_options=MAY_WAIT)
                answers = connection.execute(parts.question).one()
        except Exception as error:
            _log.warning("the sweep does not know what is due", extra={"error": type(error).__name__})
            return list(parts.by_name)
        return [name for name, due in zip(parts.by_name, answers, strict=True) if due]

    def _finish_erasures(self, scope: Scope) -> None:
        self._entities.finish_all(scope, but=self._erasures.running(scope))

    def _tidy_usage(self, scope: Scope) -> None:
        with self._database.transaction(scope) as connection:
            self._quotas.tidy(connection)

    def _forget_old_keys(self, scope: Scope) -> None:
        with self._database.transaction(scope) as connection:
            forget_old_keys(connection)


def _do(part: Callable[[], object], name: str, **more: str) -> None:
    """Do one part of a sweep. One that fails is logged by its kind and keeps no other from being done."""
    try:
        part()
    except Exception as error:
        told = {"task": name, "error": type(error).__name__, **more}
        _log.error("a part of the sweep failed", extra=told, exc_info=error)
