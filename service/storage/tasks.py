"""Tasks of the installation (a rebuild of the index, say) with their progress: counts only, no user data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, func, insert, select, update

from service import clock
from service.storage.database import Database
from service.storage.tables import NOW, TaskRow

_tasks: Final[Any] = TaskRow.__table__  # type: ignore[attr-defined]


class TaskState(StrEnum):
    """The state of a task; the last two are final."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Task:
    """How far a task is."""

    id: UUID
    state: TaskState
    done: int
    error: str | None


class Tasks:
    """Long work of the installation, asked for by one process and done by another."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def start(self, connection: Connection, kind: str) -> UUID:
        """Note a task inside the caller's transaction, which also puts it into the queue."""
        task_id = clock.new_id()
        values = {"id": task_id, "kind": kind, "state": TaskState.PENDING.value, "done": 0}
        connection.execute(insert(_tasks).values(**values, created_at=NOW, updated_at=NOW))
        return task_id

    def claim(self, kind: str, *, stale_after: timedelta) -> UUID | None:
        """Begin a task that one process at a time may do, or return None while another does it.

        One that has not said `progress` for so long belongs to a process that has ended; it counts as failed.
        """
        with self._database.tenant_blind() as connection:
            connection.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"memvault task {kind}"))))
            running = (_tasks.c.kind == kind, _tasks.c.state == TaskState.RUNNING.value)
            live = select(_tasks.c.id).where(*running, _tasks.c.updated_at > NOW - stale_after)
            if connection.execute(live).first() is not None:
                return None
            ended = {"state": TaskState.FAILED.value, "error": "the process that did it has ended"}
            connection.execute(update(_tasks).where(*running).values(**ended, updated_at=NOW))
            task_id = clock.new_id()
            values = {"id": task_id, "kind": kind, "state": TaskState.RUNNING.value, "done": 0}
            connection.execute(insert(_tasks).values(**values, created_at=NOW, updated_at=NOW))
        return task_id

    def get(self, task_id: UUID) -> Task:
        """Return a task as it is now."""
        with self._database.tenant_blind() as connection:
            row = connection.execute(select(_tasks).where(_tasks.c.id == task_id)).one()
        return Task(row.id, TaskState(row.state), row.done, row.error)

    def move(self, task_id: UUID, state: TaskState, *, error: str | None = None) -> None:
        """Move a task to another state."""
        self._update(task_id, state=state.value, error=error)

    def note(self, kind: str, state: TaskState) -> None:
        """Keep how the last task of a kind that leaves nothing else behind ended."""
        with self._database.tenant_blind() as connection:
            ended = update(_tasks).where(_tasks.c.kind == kind).values(state=state.value, updated_at=NOW)
            if connection.execute(ended).rowcount == 0:
                values = {"id": clock.new_id(), "kind": kind, "state": state.value, "done": 0}
                connection.execute(insert(_tasks).values(**values, created_at=NOW, updated_at=NOW))

    def last(self, connection: Connection, kind: str) -> tuple[TaskState, datetime] | None:
        """Return how the last task of a kind ended and when, or None."""
        query = select(_tasks.c.state, _tasks.c.updated_at).where(_tasks.c.kind == kind)
        row = connection.execute(query.order_by(_tasks.c.updated_at.desc()).limit(1)).first()
        return None if row is None else (TaskState(row.state), row.updated_at)

    def progress(self, task_id: UUID, done: int) -> None:
        """Say how many items are done."""
        self._update(task_id, done=done)

    def _update(self, task_id: UUID, **values: Any) -> None:
        with self._database.tenant_blind() as connection:
            statement = update(_tasks).where(_tasks.c.id == task_id)
            connection.execute(statement.values(**values, updated_at=NOW))
