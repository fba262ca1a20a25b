"""Between the wire and the records of connectors' calls, pure."""

from __future__ import annotations

from typing import Any

from service.api.platform.schemas import IdentityIn
from service.records import Identity
from service.scope import TenantId
from service.tenants.identities import Link
from service.webhooks.actions import Delivery, Webhook


def named(identity: IdentityIn | None) -> Identity | None:
    """Return the account that a body names."""
    return None if identity is None else Identity(identity.connector, identity.account)


def link_out(link: Link) -> dict[str, Any]:
    """Return a linked account."""
    return {
        "id": str(link.id),
        "connector": link.identity.connector,
        "account": link.identity.account,
        "user_id": link.user_id,
        "created_at": link.created_at.isoformat(),
    }


def webhook_out(webhook: Webhook, tenant_id: TenantId) -> dict[str, Any]:
    """Return a webhook, its secret only where it was just made."""
    found = {
        "webhook_id": str(webhook.id),
        "name": webhook.name,
        "url": webhook.url,
        "event_types": [one.value for one in webhook.event_types],
        "project": str(tenant_id),
        "is_active": True,
        "created_at": webhook.created_at.isoformat(),
        "updated_at": webhook.updated_at.isoformat(),
    }
    return found if webhook.secret is None else found | {"secret": webhook.secret}


def delivery_out(delivery: Delivery) -> dict[str, Any]:
    """Return a notification."""
    return {
        "id": str(delivery.id),
        "webhook_id": str(delivery.webhook_id),
        "event_type": delivery.event_type.value,
        "memory_ids": [str(one) for one in delivery.memory_ids],
        "status": delivery.status,
        "attempts": delivery.attempts,
        "http_status": delivery.http_status,
        "code": delivery.code,
        "created_at": delivery.created_at.isoformat(),
        "updated_at": delivery.updated_at.isoformat(),
        "next_attempt_at": delivery.due_at.isoformat() if delivery.status == "pending" else None,
    }
