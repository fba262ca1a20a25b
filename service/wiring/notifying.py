"""Puts together what notifies webhooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.queue.tasks import Queue
from service.settings import Settings
from service.storage.announced import Announcer, Nobody
from service.webhooks.actions import Webhooks
from service.webhooks.announcing import WebhookAnnouncer
from service.webhooks.delivering import Deliveries
from service.webhooks.outbound import Outbound, Rules

if TYPE_CHECKING:
    from service.wiring import Installation


def open_announcer(settings: Settings, queue: Queue) -> Announcer:
    """Return who is told of changes of memories: nobody, at no cost, where webhooks are off."""
    return WebhookAnnouncer(queue) if settings.webhooks.allowed_hosts else Nobody()


def open_webhooks(installation: Installation) -> tuple[Webhooks, Deliveries]:
    """Return the actions and what the worker does for them."""
    one, rules = installation, webhook_rules(installation.settings)
    webhooks = Webhooks(one.database, one.subjects, one.trail, one.gate, rules, most=one.settings.webhooks.per_tenant)
    deliveries = Deliveries(
        one.database, one.subjects, one.trail, one.queue, Outbound(rules), installation.settings.webhooks
    )
    return webhooks, deliveries


def webhook_rules(settings: Settings) -> Rules:
    """Return what the installation allows to be called."""
    chosen = settings.webhooks
    return Rules(
        hosts=frozenset(host.lower() for host in chosen.allowed_hosts),
        networks=tuple(chosen.allowed_networks),
        timeout=chosen.timeout,
        ca_file=chosen.ca_file,
    )


def webhook_state(settings: Settings) -> tuple[str, str | None]:
    """Return the state of webhooks for `/readyz`."""
    if settings.webhooks.allowed_hosts:
        return "ok", None
    return "off", "webhooks.allowed_hosts is empty: nothing is notified"
