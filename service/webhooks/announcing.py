"""Notes a change of memories for every webhook that wants it, inside the transaction of the change."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, insert, select

from service import clock
from service.queue.tasks import NOTIFICATIONS, Queue
from service.records import Change
from service.scope import Scope
from service.webhooks.tables import DELETED, DeliveryRow, WebhookRow

#: The task that sends one notification.
DELIVER: Final = "deliver_webhook"
#: Ids in one notification; a longer list goes into several.
_MOST_IDS: Final = 1000
_webhooks: Final[Any] = WebhookRow.__table__  # type: ignore[attr-defined]
_deliveries: Final[Any] = DeliveryRow.__table__  # type: ignore[attr-defined]


class EventType(StrEnum):
    """What a webhook can be told of, by the platform's names."""

    ADDED = "memory_add"
    UPDATED = "memory_update"
    DELETED = DELETED


_TYPES: Final = {Change.ADD: EventType.ADDED, Change.UPDATE: EventType.UPDATED, Change.DELETE: EventType.DELETED}
CHANGES: Final = {kind: change for change, kind in _TYPES.items()}


class WebhookAnnouncer:
    """What the record tells of its changes."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    def announce(
        self,
        connection: Connection,
        scope: Scope,
        change: Change,
        memory_ids: Sequence[UUID],
        subject_ids: Iterable[UUID] = (),
    ) -> None:
        """Note that these memories changed; nothing is sent unless this transaction commits."""
        kind = _TYPES.get(change)
        if kind is None or not memory_ids:
            return
        wanted = select(_webhooks.c.id).where(_webhooks.c.event_types.contains([kind.value])).order_by(_webhooks.c.id)
        # Kept until this transaction ends, so that one that is deleted meanwhile is no error of the change.
        hooks = list(connection.execute(wanted.with_for_update(key_share=True, read=True)).scalars())
        subjects, moment = sorted(set(subject_ids)), clock.now()
        for webhook_id in hooks:
            for start in range(0, len(memory_ids), _MOST_IDS):
                row = DeliveryRow(
                    tenant_id=scope.tenant_id,
                    id=clock.new_id(),
                    webhook_id=webhook_id,
                    event_type=kind.value,
                    memory_ids=list(memory_ids[start : start + _MOST_IDS]),
                    subject_ids=subjects,
                    status="pending",
                    created_at=moment,
                    updated_at=moment,
                    due_at=moment,
                )
                connection.execute(insert(_deliveries), [row.model_dump()])
                defer(self._queue, connection, scope, row.id, webhook_id)


def defer(
    queue: Queue,
    connection: Connection,
    scope: Scope,
    delivery_id: UUID,
    webhook_id: UUID,
    *,
    at: datetime | None = None,
) -> None:
    """Note the work of one delivery, of which each webhook has one at a time.

    So a slow receiver holds one place of the worker and not all of them. What is due later takes its turn when it is: a
    job that waits for its time with the lock would keep all that comes after it from being done.
    """
    arguments = {"tenant_id": str(scope.tenant_id), "delivery_id": str(delivery_id)}
    if at is not None:
        queue.defer(connection, DELIVER, arguments, at=at, queue=NOTIFICATIONS)
        return
    lock = f"webhook {webhook_id}"
    queue.defer(connection, DELIVER, arguments | {"in_turn": "yes"}, lock=lock, queue=NOTIFICATIONS)
