"""Puts together what runs deferred work: one worker for all of it, and one for what waits for others outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from service.queue.tasks import NOTIFICATIONS, WORK, Handler, Worker
from service.queue.workers import Workers
from service.settings import Settings
from service.webhooks.announcing import DELIVER


def open_workers(
    settings: Settings,
    dsn: str,
    handlers: Mapping[str, Handler],
    periodic: Mapping[str, tuple[str, Callable[[int], None]]],
) -> Workers:
    """Return the workers of a process, not started yet.

    Where nobody can be notified the one worker sees to what is left of it from when somebody could.
    """
    worker = partial(
        Worker,
        dsn,
        poll_interval=settings.queue.poll_interval,
        stalled_seconds=settings.queue.stalled_seconds,
        stop_seconds=settings.queue.stop_seconds,
    )
    concurrency = settings.queue.concurrency
    if not settings.webhooks.allowed_hosts:
        return Workers([worker(handlers, periodic, concurrency=concurrency, queues=(WORK, NOTIFICATIONS))])
    notifying = {DELIVER: handlers[DELIVER]}
    return Workers(
        [
            worker(handlers, periodic, concurrency=concurrency),
            worker(notifying, {}, concurrency=settings.webhooks.concurrency, queues=(NOTIFICATIONS,)),
        ]
    )
