"""The ledger of erasures: what was asked for and how far it is, read and written inside the caller's transaction."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from service import clock
from service.retention.tables import ErasureRow, ErasureWorkRow
from service.scope import Scope, SubjectKind, TenantId
from service.storage.encryption import Cipher, Place
from service.storage.keyring import KeyDestroyed, Keyring

_e: Final[Any] = ErasureRow.__table__  # type: ignore[attr-defined]
_work: Final[Any] = ErasureWorkRow.__table__  # type: ignore[attr-defined]


class ErasureKind(StrEnum):
    """What is erased."""

    USER = "user"
    AGENT = "agent"
    APP = "app"
    RUN = "run"
    CONNECTOR = "connector"
    TENANT = "tenant"

    @property
    def subject(self) -> SubjectKind | None:
        """The kind of subject, or None for a connector and a tenant."""
        return SubjectKind(self.value) if self.value in set(SubjectKind) else None


class ErasureStatus(StrEnum):
    """How far an erasure is: not before its due date, rows leave, files are rewritten, the receipt is there."""

    SCHEDULED = "scheduled"
    RUNNING = "running"
    PURGING = "purging"
    COMPLETED = "completed"


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be erased: a subject or a connector by its name, or the whole tenant."""

    kind: ErasureKind
    name: str = ""


@dataclass(frozen=True, slots=True)
class Erasure:
    """An erasure as it stands. `connector` is the name for one of a connector, as long as the tenant's key lives."""

    id: UUID
    tenant_id: TenantId
    kind: ErasureKind
    status: ErasureStatus
    subject_id: UUID | None
    connector: str | None
    due_at: datetime | None
    blocked_by: str | None
    requested_at: datetime
    begun_at: datetime | None
    removed_at: datetime | None
    completed_at: datetime | None
    removed: Mapping[str, int]
    sealed_elsewhere: int
    physical: Mapping[str, Any] | None
    receipt: Mapping[str, Any] | None


class Ledger:
    """Reads and writes erasures. `work` is the list across tenants of what is to be done, by ids only."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def add(
        self,
        connection: Connection,
        scope: Scope,
        target: Target,
        *,
        subject_id: UUID | None,
        principal_id: UUID | None,
        due_at: datetime | None,
    ) -> Erasure:
        """Enter an erasure: scheduled when it has a due date, else running."""
        erasure_id, moment = clock.new_id(), clock.now()
        connector = target.kind is ErasureKind.CONNECTOR
        row: dict[str, Any] = {
            "tenant_id": scope.tenant_id,
            "id": erasure_id,
            "kind": target.kind.value,
            "subject_id": subject_id,
            "target": self._cipher(scope).seal(target.name.encode(), _place(scope, erasure_id)) if connector else None,
            "target_mac": self._mac(scope, target) if connector else None,
            "status": (ErasureStatus.RUNNING if due_at is None else ErasureStatus.SCHEDULED).value,
            "due_at": due_at,
            "principal_id": principal_id,
            "requested_at": moment,
            "begun_at": moment if due_at is None else None,
            "removed": {},
            "sealed_elsewhere": 0,
        }
        connection.execute(insert(_e), [row])
        self.plan(connection, scope, erasure_id, due_at or moment)
        return self.get(connection, scope, erasure_id)

    def find(self, connection: Connection, scope: Scope, erasure_id: UUID, *, lock: bool = False) -> Erasure | None:
        """Return an erasure, locked until this transaction ends where that is asked for, or None."""
        query = select(_e).where(_e.c.id == erasure_id)
        row = connection.execute(query.with_for_update() if lock else query).first()
        return None if row is None else self._erasure(scope, row)

    def get(self, connection: Connection, scope: Scope, erasure_id: UUID) -> Erasure:
        """Return an erasure that is there."""
        return self._erasure(scope, connection.execute(select(_e).where(_e.c.id == erasure_id)).one())

    def find_open(
        self, connection: Connection, scope: Scope, target: Target, subject_id: UUID | None
    ) -> Erasure | None:
        """Return the erasure of the same target whose rows are not all gone yet, or None."""
        query = select(_e).where(
            _e.c.kind == target.kind.value,
            _e.c.status.in_([ErasureStatus.SCHEDULED.value, ErasureStatus.RUNNING.value]),
        )
        if target.kind is ErasureKind.CONNECTOR:
            query = query.where(_e.c.target_mac == self._mac(scope, target))
        elif subject_id is not None:
            query = query.where(_e.c.subject_id == subject_id)
        row = connection.execute(query.limit(1)).first()
        return None if row is None else self._erasure(scope, row)

    def page(self, connection: Connection, scope: Scope, *, page: int, size: int) -> tuple[list[Erasure], int]:
        """Return one page of erasures, the newest first, and how many there are."""
        total = connection.execute(select(func.count()).select_from(_e)).scalar_one()
        query = select(_e).order_by(_e.c.requested_at.desc(), _e.c.id.desc()).offset((page - 1) * size).limit(size)
        return [self._erasure(scope, row) for row in connection.execute(query)], int(total)

    def running_subjects(self, connection: Connection) -> set[UUID]:
        """Return the subjects whose rows an erasure removes at present."""
        query = select(_e.c.subject_id).where(_e.c.status == ErasureStatus.RUNNING.value)
        return {one for one in connection.execute(query).scalars() if one is not None}

    def find_running(self, connection: Connection, scope: Scope, subject_id: UUID) -> Erasure | None:
        """Return the erasure that removes the rows of a subject at present, or None."""
        query = select(_e).where(_e.c.subject_id == subject_id, _e.c.status == ErasureStatus.RUNNING.value)
        row = connection.execute(query).first()
        return None if row is None else self._erasure(scope, row)

    def begin(self, connection: Connection, scope: Scope, erasure_id: UUID) -> None:
        """Let a scheduled erasure run, which is due by that, whatever it waited for."""
        moment = clock.now()
        due_at = func.least(_e.c.due_at, moment)
        running = ErasureStatus.RUNNING.value
        self._set(connection, erasure_id, status=running, begun_at=moment, due_at=due_at, blocked_by=None)
        self.plan(connection, scope, erasure_id, moment)

    def postpone(
        self, connection: Connection, scope: Scope, erasure_id: UUID, due_at: datetime, *, blocked_by: str
    ) -> None:
        """Put an erasure off: one that is scheduled, or one that a hold came before when it ran."""
        self._set(connection, erasure_id, due_at=due_at, blocked_by=blocked_by)
        self.plan(connection, scope, erasure_id, due_at)

    def count(
        self, connection: Connection, erasure_id: UUID, rows: Mapping[str, int], *, sealed_elsewhere: int
    ) -> None:
        """Add to what was removed."""
        row = connection.execute(
            select(_e.c.removed, _e.c.sealed_elsewhere).where(_e.c.id == erasure_id).with_for_update()
        ).one()
        removed = {name: row.removed.get(name, 0) + rows.get(name, 0) for name in {*row.removed, *rows}}
        self._set(connection, erasure_id, removed=removed, sealed_elsewhere=row.sealed_elsewhere + sealed_elsewhere)

    def removed(self, connection: Connection, scope: Scope, erasure_id: UUID, purge_at: datetime) -> None:
        """Say that the rows are gone and the files are to be rewritten."""
        moment = clock.now()
        self._set(connection, erasure_id, status=ErasureStatus.PURGING.value, removed_at=moment, blocked_by=None)
        self.plan(connection, scope, erasure_id, purge_at)

    def again(self, connection: Connection, scope: Scope, erasure_id: UUID) -> None:
        """Let an erasure run again: something of it was still there."""
        self._set(connection, erasure_id, status=ErasureStatus.RUNNING.value)
        self.plan(connection, scope, erasure_id, clock.now())

    def complete(
        self,
        connection: Connection,
        scope: Scope,
        erasure_id: UUID,
        *,
        at: datetime,
        physical: Mapping[str, Any],
        receipt: Mapping[str, Any],
    ) -> None:
        """Keep the receipt."""
        self._set(
            connection,
            erasure_id,
            status=ErasureStatus.COMPLETED.value,
            completed_at=at,
            physical=dict(physical),
            receipt=dict(receipt),
            target_mac=None,
        )
        theirs = (_work.c.tenant_id == scope.tenant_id) & (_work.c.erasure_id == erasure_id)
        connection.execute(delete(_work).where(theirs))

    def plan(self, connection: Connection, scope: Scope, erasure_id: UUID, at: datetime) -> None:
        """Note when an erasure has something to be done next."""
        row = {"tenant_id": scope.tenant_id, "erasure_id": erasure_id, "due_at": at}
        statement = upsert(_work).values(row)
        connection.execute(
            statement.on_conflict_do_update(index_elements=["tenant_id", "erasure_id"], set_={"due_at": at})
        )

    @staticmethod
    def look_again(connection: Connection, scope: Scope) -> None:
        """Let everything of the tenant that is scheduled be looked at now: what put it off may be gone."""
        scheduled = select(_e.c.id).where(_e.c.status == ErasureStatus.SCHEDULED.value)
        theirs = (_work.c.tenant_id == scope.tenant_id) & _work.c.erasure_id.in_(scheduled)
        connection.execute(update(_work).where(theirs).values(due_at=clock.now()))

    @staticmethod
    def due(
        connection: Connection, has_job: Callable[[Any], ColumnElement[bool]], *, limit: int = 1000
    ) -> list[tuple[TenantId, UUID]]:
        """Return the erasures of all tenants that should have done something by now and have no job."""
        lost = (_work.c.due_at <= clock.now()) & ~has_job(_work.c.erasure_id)
        query = select(_work).where(lost).order_by(_work.c.due_at).limit(limit)
        return [(TenantId(row.tenant_id), row.erasure_id) for row in connection.execute(query)]

    @staticmethod
    def standing(connection: Connection) -> tuple[int, int, datetime | None]:
        """Return how many erasures are due, how many are planned for later, and since when the oldest is due."""
        due = _work.c.due_at <= clock.now()
        query = select(func.count().filter(due), func.count().filter(~due), func.min(_work.c.due_at).filter(due))
        row = connection.execute(query).one()
        return int(row[0]), int(row[1]), row[2]

    @staticmethod
    def open(connection: Connection) -> list[tuple[TenantId, UUID]]:
        """Return the erasures of all tenants that are not completed."""
        rows = connection.execute(select(_work).order_by(_work.c.due_at))
        return [(TenantId(row.tenant_id), row.erasure_id) for row in rows]

    def _set(self, connection: Connection, erasure_id: UUID, **values: Any) -> None:
        connection.execute(update(_e).where(_e.c.id == erasure_id).values(**values))

    def _cipher(self, scope: Scope) -> Cipher:
        return Cipher(self._keyring.tenant_secret(scope.tenant_id, "tenant-content"))

    def _mac(self, scope: Scope, target: Target) -> bytes:
        secret = self._keyring.tenant_secret(scope.tenant_id, "erasure-targets")
        return hmac.digest(secret, f"{target.kind.value}\x00{target.name}".encode(), hashlib.sha256)

    def _erasure(self, scope: Scope, row: Any) -> Erasure:
        connector = None
        if row.target is not None:
            try:
                connector = self._cipher(scope).open(row.target, _place(scope, row.id)).decode()
            except KeyDestroyed:
                connector = None
        return Erasure(
            id=row.id,
            tenant_id=scope.tenant_id,
            kind=ErasureKind(row.kind),
            status=ErasureStatus(row.status),
            subject_id=row.subject_id,
            connector=connector,
            due_at=row.due_at,
            blocked_by=row.blocked_by,
            requested_at=row.requested_at,
            begun_at=row.begun_at,
            removed_at=row.removed_at,
            completed_at=row.completed_at,
            removed=row.removed,
            sealed_elsewhere=row.sealed_elsewhere,
            physical=row.physical,
            receipt=row.receipt,
        )


def _place(scope: Scope, erasure_id: UUID) -> Place:
    return Place(scope.tenant_id, "erasures", erasure_id, "target")
