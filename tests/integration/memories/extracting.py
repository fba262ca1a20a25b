"""What tests of extraction share: asking for one, and waiting for its end."""

from __future__ import annotations

import time
from typing import Any

from service.records import Event, Message, NewMemories, SubjectNames
from service.scope import Caller
from service.wiring import Services


def ask(
    services: Services, caller: Caller, *texts: str, user: str = "alice", run: str | None = None, **more: Any
) -> Event:
    """Ask for an extraction."""
    new = NewMemories([Message("user", text) for text in texts], SubjectNames(user_id=user, run_id=run), **more)
    return services.adds.add(caller, caller.scope, new)


def ended(services: Services, caller: Caller, event: Event, within: float = 60.0) -> Event:
    """Wait for an event to be final."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        found = services.events.get(caller, caller.scope, event.id)
        if found.status.is_final:
            return found
        time.sleep(0.05)
    raise AssertionError(f"the event is still {found.status} ({found.code})")
