"""Waits for an event's end, on behalf of clients that expect the results of an add at once."""

from __future__ import annotations

import asyncio
from typing import Final

from starlette.concurrency import run_in_threadpool

from service import clock
from service.errors import Conflict, QuotaExceeded, Unavailable
from service.policy.table import authorize
from service.records import Event, EventStatus, NewMemories
from service.scope import Action, Caller, Limit
from service.wiring import Services

#: Seconds between looks at an event: often at first, since each look leaves its row in the trail.
_FIRST_LOOK: Final = 0.1
_LONGEST_PAUSE: Final = 2.0


async def add_and_wait(services: Services, caller: Caller, new: NewMemories, idempotency_key: str | None) -> Event:
    """Add memories and return their event once it is final, or as it is after `server.event_wait` seconds.

    For a caller that may not read events it is returned as it is at once.

    Raises:
        QuotaExceeded: when the tenant had no room for what was extracted.
        Unavailable: when the extraction failed.
        Conflict: when it was cancelled.
    """

    def add() -> Event:
        return services.adds.add(caller, caller.scope, new, idempotency_key=idempotency_key)

    # Not in the pool: a thread that waits for the LLM would be missing to everybody else.
    event = await run_in_threadpool(add)
    event = await _waited_for(caller, services, event)
    if event.status is EventStatus.FAILED:
        told = f"nothing was stored: {event.reason or 'the extraction failed'} (event {event.id})"
        if event.code == QuotaExceeded.code:
            # Which limit it was is told by the reason, and by the trail already.
            raise QuotaExceeded(told, limit=Limit.MEMORIES)
        raise Unavailable(told)
    if event.status is EventStatus.CANCELLED:
        raise Conflict(f"nothing was stored: {event.reason or 'the add was cancelled'} (event {event.id})")
    return event


async def _waited_for(caller: Caller, services: Services, event: Event) -> Event:
    if not authorize(caller.principal, Action.GET_EVENT):
        # Whoever may only write is told that it was taken.
        return event
    until = clock.monotonic() + services.settings.server.event_wait
    pause = _FIRST_LOOK
    while not event.status.is_final and (left := until - clock.monotonic()) > 0:
        await asyncio.sleep(min(pause, left))
        pause = min(pause * 2, _LONGEST_PAUSE)
        event = await run_in_threadpool(services.events.get, caller, caller.scope, event.id)
    return event
