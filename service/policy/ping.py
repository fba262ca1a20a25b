"""The smallest action: shows that a credential is good, and leaves its row in the trail like every other."""

from __future__ import annotations

from service.audit.events import AuditEvent
from service.audit.trail import Trail
from service.policy.gate import Gate
from service.scope import Action, Caller, Scope
from service.storage.database import Database


class Ping:
    """Answers whoever has a credential."""

    def __init__(self, database: Database, trail: Trail, gate: Gate) -> None:
        self._database = database
        self._trail = trail
        self._gate = gate

    def ping(self, caller: Caller, scope: Scope) -> None:
        """Return when the caller may use the service and the trail says that it asked.

        Raises:
            Forbidden: when the policy refuses it.
            RecordUnavailable: when the trail cannot be written.
        """
        self._gate.check(caller, Action.PING)
        with self._database.transaction(scope) as connection:
            self._trail.write(connection, caller, AuditEvent.SERVICE_PINGED)
