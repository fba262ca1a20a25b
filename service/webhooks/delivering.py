"""Sends what is due to a webhook: again and again with growing pauses, and not for ever."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import orjson
from sqlalchemy import ColumnElement, Connection, and_, delete, exists, not_, or_, select, update

from service import clock
from service.audit.connector_details import WebhookDelivered
from service.audit.events import AuditEvent, Outcome
from service.audit.trail import Trail
from service.queue.tasks import Queue
from service.scope import Caller, Scope, TenantId, service_principal
from service.settings import Webhooks as WebhookSettings
from service.storage.database import Database
from service.storage.encryption import Cipher
from service.tenants.actions import is_active
from service.tenants.subjects import Subjects
from service.webhooks.announcing import CHANGES, DELIVER, EventType, defer
from service.webhooks.outbound import Outbound, Refused
from service.webhooks.places import opened
from service.webhooks.signing import signed_headers
from service.webhooks.tables import DeliveryRow, WebhookRow

_webhooks: Final[Any] = WebhookRow.__table__  # type: ignore[attr-defined]
_deliveries: Final[Any] = DeliveryRow.__table__  # type: ignore[attr-defined]
_LONGEST_PAUSE: Final = timedelta(hours=6)
#: Reasons that another try does not mend: the installation does not allow the address.
_FINAL: Final = frozenset({"host_not_allowed", "address_not_allowed", "not_encrypted"})
_GONE: Final = 410
#: A job is lost when its time is this long past and nothing works at it.
_LOST_AFTER: Final = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class _Due:
    """What is to be sent, where and how often it was tried."""

    id: UUID
    webhook_id: UUID
    url: str
    secret: str
    body: bytes


@dataclass(frozen=True, slots=True)
class _Went:
    """How one try went: with a status, or with the code of why there is none."""

    http_status: int | None = None
    code: str | None = None

    @property
    def delivered(self) -> bool:
        """Whether the receiver took it."""
        return self.http_status is not None and 200 <= self.http_status < 300

    @property
    def final(self) -> bool:
        """Whether another try is pointless."""
        return self.code in _FINAL or self.http_status == _GONE


class _Silences:
    """Which receivers did not answer a moment ago: what waits for one of them need not find out each for itself.

    A receiver that hangs holds a place of the worker for the whole of each try.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._silent: dict[UUID, tuple[float, str]] = {}

    def note(self, webhook_id: UUID, code: str) -> None:
        """Note that there was no answer, with the code of why."""
        now = clock.monotonic()
        with self._lock:
            self._silent = {one: noted for one, noted in self._silent.items() if noted[0] > now}
            self._silent[webhook_id] = (now + self._seconds, code)

    def code(self, webhook_id: UUID) -> str | None:
        """Return why there was no answer just before, None when there was one or it is long ago."""
        with self._lock:
            until, code = self._silent.get(webhook_id, (0.0, ""))
        return code if clock.monotonic() < until else None


class Deliveries:
    """What the worker does for webhooks."""

    def __init__(
        self,
        database: Database,
        subjects: Subjects,
        trail: Trail,
        queue: Queue,
        outbound: Outbound,
        settings: WebhookSettings,
    ) -> None:
        self._database = database
        self._subjects = subjects
        self._trail = trail
        self._queue = queue
        self._outbound = outbound
        self._settings = settings
        self._silences = _Silences(settings.retry_wait)

    def deliver(self, tenant_id: str, delivery_id: str, in_turn: str | None = None) -> None:
        """Try to send one notification, and note how it went. Sent twice, it has the same id.

        Unless it is `in_turn`, it has only become due, and waits for its tenant's other tries.
        """
        scope = Scope.of(service_principal(TenantId(UUID(tenant_id))))
        if in_turn is None:
            self._take_turn(scope, UUID(delivery_id))
            return
        due = self._due(scope, UUID(delivery_id))
        if due is None:
            return
        # The world, with no transaction open.
        went = self._sent(due)
        with self._database.transaction(scope) as connection:
            self._note(connection, scope, due, went)

    def sweep(self, scope: Scope) -> None:
        """Take up what lost its job, and forget what is long done."""
        with self._database.transaction(scope) as connection:
            connection.execute(delete(_deliveries).where(self._old()))
            if not is_active(connection, scope.tenant_id):
                return
            lost = select(_deliveries.c.id, _deliveries.c.webhook_id).where(_lost())
            for found in connection.execute(lost.limit(1000)).all():
                defer(self._queue, connection, scope, found.id, found.webhook_id)

    def any_to_sweep(self) -> ColumnElement[bool]:
        """Return the condition that `sweep` has anything to do for the tenant, were it active."""
        return or_(exists().where(self._old()), exists().where(_lost()))

    def _old(self) -> ColumnElement[bool]:
        before = clock.now() - timedelta(days=self._settings.keep_days)
        return and_(_deliveries.c.status != "pending", _deliveries.c.updated_at < before)

    def _take_turn(self, scope: Scope, delivery_id: UUID) -> None:
        with self._database.transaction(scope) as connection:
            query = select(_deliveries.c.webhook_id).where(_deliveries.c.id == delivery_id)
            webhook_id = connection.execute(query.where(_deliveries.c.status == "pending")).scalar()
            if webhook_id is not None:
                defer(self._queue, connection, scope, delivery_id, webhook_id)

    def _due(self, scope: Scope, delivery_id: UUID) -> _Due | None:
        with self._database.transaction(scope) as connection:
            if not is_active(connection, scope.tenant_id):
                # Taken up by the sweep once the tenant is resumed.
                return None
            query = (
                select(_deliveries, _webhooks.c.url, _webhooks.c.secret)
                .join(_webhooks, _webhooks.c.id == _deliveries.c.webhook_id)
                .where(_deliveries.c.id == delivery_id, _deliveries.c.status == "pending")
            )
            row = connection.execute(query).first()
        if row is None:
            return None
        cipher: Cipher = self._subjects.tenant_cipher(scope)
        body = {
            "id": str(row.id),
            "event_type": row.event_type,
            "event": CHANGES[EventType(row.event_type)].value,
            "project_id": str(scope.tenant_id),
            "created_at": row.created_at.isoformat(),
            "memory_ids": [str(one) for one in row.memory_ids],
        }
        return _Due(
            id=row.id,
            webhook_id=row.webhook_id,
            url=opened(cipher, scope, row.webhook_id, "url", row.url),
            secret=opened(cipher, scope, row.webhook_id, "secret", row.secret),
            body=orjson.dumps(body),
        )

    def _sent(self, due: _Due) -> _Went:
        # Where each notification has one try, that of another must not be taken for it.
        if self._settings.attempts > 1 and (silence := self._silences.code(due.webhook_id)) is not None:
            return _Went(code=silence)
        headers = {"Content-Type": "application/json", "User-Agent": "memvault-webhooks"}
        headers |= signed_headers(due.secret, str(due.id), int(clock.now().timestamp()), due.body)
        try:
            return _Went(http_status=self._outbound.post(due.url, due.body, headers))
        except Refused as refused:
            if refused.code not in _FINAL:
                self._silences.note(due.webhook_id, refused.code)
            return _Went(code=refused.code)

    def _note(self, connection: Connection, scope: Scope, due: _Due, went: _Went) -> None:
        locked = select(_deliveries).where(_deliveries.c.id == due.id, _deliveries.c.status == "pending")
        row = connection.execute(locked.with_for_update()).first()
        if row is None:
            # Erased, or deleted with its webhook, or noted by another worker.
            return
        attempts, moment = row.attempts + 1, clock.now()
        status = "delivered" if went.delivered else "pending"
        if not went.delivered and (went.final or attempts >= self._settings.attempts):
            status = "dead"
        due_at: datetime = moment
        if status == "pending":
            due_at = moment + min(timedelta(seconds=self._settings.retry_wait) * 2 ** (attempts - 1), _LONGEST_PAUSE)
            defer(self._queue, connection, scope, due.id, due.webhook_id, at=due_at)
        connection.execute(
            update(_deliveries)
            .where(_deliveries.c.id == due.id)
            .values(
                status=status,
                attempts=attempts,
                http_status=went.http_status,
                code=None if went.delivered else went.code or "status",
                updated_at=moment,
                due_at=due_at,
            )
        )
        if status == "pending":
            return
        caller = Caller(service_principal(scope.tenant_id), request_id=str(due.id), client="webhooks", face="worker")
        self._trail.write(
            connection,
            caller,
            AuditEvent.WEBHOOK_DELIVERED,
            outcome=Outcome.DONE if went.delivered else Outcome.FAILED,
            subjects=row.subject_ids,
            targets=[due.webhook_id],
            results=row.memory_ids,
            detail=WebhookDelivered(attempts=attempts, http_status=went.http_status, code=went.code),
        )


def _lost() -> ColumnElement[bool]:
    return and_(
        _deliveries.c.status == "pending",
        _deliveries.c.due_at < clock.now() - _LOST_AFTER,
        not_(Queue.has_job(DELIVER, "delivery_id", _deliveries.c.id)),
    )
