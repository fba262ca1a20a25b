"""Webhooks: made, listed, changed and removed by whoever may manage them, and how their notifications went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import delete, func, insert, select, update

from service import clock
from service.audit.connector_details import WebhookDeliveriesListed, WebhooksListed, WebhookUpdated
from service.audit.details import Reason
from service.audit.events import AuditEvent, Outcome
from service.audit.trail import Trail
from service.errors import Forbidden, InvalidInput, NotFound, TooLarge
from service.filters.values import check_characters
from service.policy.gate import Gate
from service.records import Page
from service.scope import Action, Caller, Scope
from service.storage.database import Database
from service.tenants import usage
from service.tenants.subjects import Subjects
from service.webhooks.announcing import EventType
from service.webhooks.outbound import Rules, target_of
from service.webhooks.places import opened, sealed
from service.webhooks.signing import new_secret
from service.webhooks.tables import DeliveryRow, WebhookRow

_webhooks: Final[Any] = WebhookRow.__table__  # type: ignore[attr-defined]
_deliveries: Final[Any] = DeliveryRow.__table__  # type: ignore[attr-defined]
_NAME_CHARS: Final = 255
_NO_PROJECT: Final = "there is no such project; GET /v1/ping/ tells yours"


@dataclass(frozen=True, slots=True)
class Webhook:
    """An address that is told of changes. `secret` is None but in the answer that made it."""

    id: UUID
    name: str
    url: str
    event_types: tuple[EventType, ...]
    created_at: datetime
    updated_at: datetime
    secret: str | None = None


@dataclass(frozen=True, slots=True)
class WebhookEdit:
    """What an update changes; what is None stays."""

    name: str | None = None
    url: str | None = None
    event_types: tuple[EventType, ...] | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One notification and how it went. `code` says why there is no good answer yet."""

    id: UUID
    webhook_id: UUID
    event_type: EventType
    memory_ids: tuple[UUID, ...]
    status: str
    attempts: int
    http_status: int | None
    code: str | None
    created_at: datetime
    updated_at: datetime
    due_at: datetime


class Webhooks:
    """The webhooks of a tenant."""

    def __init__(
        self, database: Database, subjects: Subjects, trail: Trail, gate: Gate, rules: Rules, *, most: int
    ) -> None:
        self._database = database
        self._subjects = subjects
        self._trail = trail
        self._gate = gate
        self._rules = rules
        self._most = most

    def create(
        self,
        caller: Caller,
        scope: Scope,
        name: str,
        url: str,
        event_types: Sequence[EventType],
        *,
        project: str | None = None,
    ) -> Webhook:
        """Make a webhook and return it with its secret, which is shown this once.

        Raises:
            NotFound: when a project is named that is not the caller's tenant.
            InvalidInput: for a URL that may not be called, or without event types.
            TooLarge: when the tenant has as many as it may.
        """
        self._check(caller, Action.CREATE_WEBHOOK)
        if _is_foreign(scope, project):
            with self._database.transaction(scope) as connection:
                self._trail.write(connection, caller, AuditEvent.WEBHOOK_CREATED, outcome=Outcome.NOT_FOUND)
            raise NotFound(_NO_PROJECT)
        self._check_shape(WebhookEdit(name, url, tuple(event_types)))
        moment = clock.now()
        made = Webhook(clock.new_id(), name, url, tuple(event_types), moment, moment, secret=new_secret())
        with self._database.transaction(scope) as connection:
            # So that of two at once the second counts the first.
            usage.one_by_one(connection, scope, "webhooks")
            count = connection.execute(select(func.count()).select_from(_webhooks)).scalar_one()
            if count >= self._most:
                raise TooLarge(f"a tenant has at most {self._most} webhooks (webhooks.per_tenant); delete one first")
            cipher = self._subjects.tenant_cipher(scope)
            secrets = {"name": name, "url": url, "secret": made.secret or ""}
            connection.execute(
                insert(_webhooks).values(
                    tenant_id=scope.tenant_id,
                    id=made.id,
                    event_types=[one.value for one in made.event_types],
                    principal_id=caller.principal.id,
                    created_at=moment,
                    updated_at=moment,
                    **{column: sealed(cipher, scope, made.id, column, value) for column, value in secrets.items()},
                )
            )
            self._trail.write(connection, caller, AuditEvent.WEBHOOK_CREATED, targets=[made.id])
        return made

    def list(self, caller: Caller, scope: Scope, *, project: str | None = None) -> Sequence[Webhook]:
        """Return the tenant's webhooks, the oldest first, without their secrets.

        Raises:
            NotFound: when a project is named that is not the caller's tenant.
        """
        self._check(caller, Action.LIST_WEBHOOKS)
        foreign = _is_foreign(scope, project)
        with self._database.transaction(scope) as connection:
            query = select(_webhooks).order_by(_webhooks.c.created_at, _webhooks.c.id)
            rows = [] if foreign else connection.execute(query).all()
            found = [self._webhook(scope, row) for row in rows]
            self._trail.write(
                connection,
                caller,
                AuditEvent.WEBHOOKS_LISTED,
                outcome=Outcome.NOT_FOUND if foreign else Outcome.DONE,
                results=[one.id for one in found],
                detail=WebhooksListed(total=len(found)),
            )
        if foreign:
            raise NotFound(_NO_PROJECT)
        return found

    def update(self, caller: Caller, scope: Scope, webhook_id: UUID, edit: WebhookEdit) -> Webhook:
        """Change a webhook; its secret stays.

        Raises:
            NotFound: when the tenant has no such webhook.
            InvalidInput: when nothing is changed, or for a URL that may not be called.
        """
        self._check(caller, Action.UPDATE_WEBHOOK, targets=[webhook_id])
        if edit == WebhookEdit():
            raise InvalidInput("nothing to change: give name, url or event_types")
        self._check_shape(edit)
        cipher = self._subjects.tenant_cipher(scope)
        values: dict[str, Any] = {"updated_at": clock.now()}
        for column in ("name", "url"):
            if (value := getattr(edit, column)) is not None:
                values[column] = sealed(cipher, scope, webhook_id, column, value)
        if edit.event_types is not None:
            values["event_types"] = [one.value for one in edit.event_types]
        with self._database.transaction(scope) as connection:
            changed = update(_webhooks).where(_webhooks.c.id == webhook_id).values(**values).returning(_webhooks)
            row = connection.execute(changed).first()
            self._trail.write(
                connection,
                caller,
                AuditEvent.WEBHOOK_UPDATED,
                targets=[webhook_id],
                outcome=Outcome.DONE if row else Outcome.NOT_FOUND,
                detail=WebhookUpdated(
                    name=edit.name is not None, url=edit.url is not None, event_types=edit.event_types is not None
                ),
            )
        if row is None:
            raise NotFound("there is no such webhook")
        return self._webhook(scope, row)

    def delete(self, caller: Caller, scope: Scope, webhook_id: UUID) -> None:
        """Remove a webhook with all that was to be delivered to it.

        Raises:
            NotFound: when the tenant has no such webhook.
        """
        self._check(caller, Action.DELETE_WEBHOOK, targets=[webhook_id])
        with self._database.transaction(scope) as connection:
            gone = connection.execute(delete(_webhooks).where(_webhooks.c.id == webhook_id)).rowcount
            outcome = Outcome.DONE if gone else Outcome.NOT_FOUND
            self._trail.write(connection, caller, AuditEvent.WEBHOOK_DELETED, targets=[webhook_id], outcome=outcome)
        if not gone:
            raise NotFound("there is no such webhook")

    def deliveries(self, caller: Caller, scope: Scope, webhook_id: UUID, *, page: int, size: int) -> Page[Delivery]:
        """Return one page of what was to be delivered to a webhook, the newest first.

        Raises:
            NotFound: when the tenant has no such webhook.
        """
        self._check(caller, Action.LIST_DELIVERIES, targets=[webhook_id])
        with self._database.transaction(scope) as connection:
            found = connection.execute(select(_webhooks.c.id).where(_webhooks.c.id == webhook_id)).first()
            own = _deliveries.c.webhook_id == webhook_id
            total = int(connection.execute(select(func.count()).select_from(_deliveries).where(own)).scalar_one())
            query = select(_deliveries).where(own).order_by(_deliveries.c.created_at.desc(), _deliveries.c.id.desc())
            rows = connection.execute(query.offset((page - 1) * size).limit(size)).all()
            self._trail.write(
                connection,
                caller,
                AuditEvent.DELIVERIES_LISTED,
                targets=[webhook_id],
                outcome=Outcome.DONE if found else Outcome.NOT_FOUND,
                detail=WebhookDeliveriesListed(page=page, total=total),
            )
        if found is None:
            raise NotFound("there is no such webhook")
        return Page([_delivery(row) for row in rows], total, page, size)

    def _check(self, caller: Caller, action: Action, *, targets: Sequence[UUID] = ()) -> None:
        self._gate.check(caller, action, targets=targets)
        if caller.principal.users is not None:
            self._trail.refuse(caller, action, Reason.BOUND, targets=targets)
            raise Forbidden("this key is bound to users, and webhooks tell of the whole tenant: use a key that is not")

    def _check_shape(self, edit: WebhookEdit) -> None:
        if edit.name is not None:
            check_characters(edit.name, "name")
            if not edit.name.strip() or len(edit.name) > _NAME_CHARS:
                raise InvalidInput(f"name: must have 1 to {_NAME_CHARS} characters, not only spaces")
        if edit.event_types is not None and not edit.event_types:
            raise InvalidInput(f"event_types: one or more of {', '.join(EventType)}")
        if edit.url is not None:
            if not self._rules.hosts:
                raise InvalidInput("webhooks are off here: nothing leaves until webhooks.allowed_hosts names a host")
            target_of(edit.url, self._rules.hosts)

    def _webhook(self, scope: Scope, row: Any) -> Webhook:
        cipher = self._subjects.tenant_cipher(scope)
        return Webhook(
            id=row.id,
            name=opened(cipher, scope, row.id, "name", row.name),
            url=opened(cipher, scope, row.id, "url", row.url),
            event_types=tuple(EventType(one) for one in row.event_types),
            created_at=row.created_at,
            updated_at=row.updated_at,
        )


def _is_foreign(scope: Scope, project: str | None) -> bool:
    """Tell whether a call names a project, which is a tenant here, that is not the caller's own."""
    return project is not None and project.lower() != str(scope.tenant_id)


def _delivery(row: Any) -> Delivery:
    return Delivery(
        id=row.id,
        webhook_id=row.webhook_id,
        event_type=EventType(row.event_type),
        memory_ids=tuple(row.memory_ids),
        status=row.status,
        attempts=row.attempts,
        http_status=row.http_status,
        code=row.code,
        created_at=row.created_at,
        updated_at=row.updated_at,
        due_at=row.due_at,
    )
