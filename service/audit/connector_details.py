"""Details of what is done for connectors: the accounts that stand for users, and webhooks."""

from __future__ import annotations

from service.audit.details import Code, Detail
from service.audit.events import AuditEvent


class IdentityLinked(Detail):
    """An account of a connector was linked to a user; `known`: it was so already."""

    event = AuditEvent.IDENTITY_LINKED
    known: bool = False


class IdentitiesListed(Detail):
    """A page of linked accounts was read."""

    event = AuditEvent.IDENTITIES_LISTED
    page: int
    total: int


class IdentityUnlinked(Detail):
    """An account of a connector stands for nobody any more."""

    event = AuditEvent.IDENTITY_UNLINKED


class WebhookCreated(Detail):
    """A webhook was made."""

    event = AuditEvent.WEBHOOK_CREATED


class WebhooksListed(Detail):
    """The tenant's webhooks were listed."""

    event = AuditEvent.WEBHOOKS_LISTED
    total: int


class WebhookUpdated(Detail):
    """A webhook was changed: what of it."""

    event = AuditEvent.WEBHOOK_UPDATED
    name: bool
    url: bool
    event_types: bool


class WebhookDeleted(Detail):
    """A webhook was removed with all that was to be delivered to it."""

    event = AuditEvent.WEBHOOK_DELETED


class WebhookDeliveriesListed(Detail):
    """A page of a webhook's notifications was read."""

    event = AuditEvent.DELIVERIES_LISTED
    page: int
    total: int


class WebhookDelivered(Detail):
    """The ids of memories were sent to a webhook, or it was given up: how often it was tried, and why."""

    event = AuditEvent.WEBHOOK_DELIVERED
    attempts: int
    http_status: int | None = None
    code: Code | None = None
