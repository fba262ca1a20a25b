"""Writes the trail, inside the transaction of what it tells of: when the row cannot be written, nothing happens."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, insert

from service import clock
from service.audit.events import AuditEvent, Outcome
from service.audit.tables import AuditRow
from service.scope import SERVICE_ID, SYSTEM_TENANT, Caller, Scope, service_principal
from service.storage.database import Database
from service.storage.keyring import Keyring

_audit: Final[Any] = AuditRow.__table__  # type: ignore[attr-defined]
_CLIENT_CHARS: Final = 200
#: Ids listed in one row; what is more is counted in the detail.
_MOST_IDS: Final = 1000


class Trail:
    """The audit trail. It can be added to and nothing else."""

    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database = database
        self._keyring = keyring

    def write(
        self,
        connection: Connection,
        caller: Caller,
        event: AuditEvent,
        *,
        outcome: Outcome = Outcome.DONE,
        subjects: Iterable[UUID] = (),
        targets: Iterable[UUID] = (),
        results: Iterable[UUID] = (),
        query: str | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """Add one row. `detail` holds counts and codes, never content; `query` is kept as a keyed HMAC only."""
        principal = caller.principal
        target_ids, result_ids = list(targets), list(results)
        more = dict(detail or {})
        for name, ids in (("targets", target_ids), ("results", result_ids)):
            if len(ids) > _MOST_IDS:
                more[name] = len(ids)
        connection.execute(
            insert(_audit).values(
                tenant_id=principal.tenant_id,
                id=clock.new_id(),
                at=clock.now(),
                event=event.value,
                outcome=outcome.value,
                principal_id=None if principal.id == SERVICE_ID else principal.id,
                subject_ids=list(subjects),
                connector=principal.connector,
                client=printable(caller.client),
                face=caller.face,
                request_id=caller.request_id,
                target_ids=target_ids[:_MOST_IDS],
                result_ids=result_ids[:_MOST_IDS],
                query_mac=None if query is None else self.mac(caller.scope, query),
                detail=more,
            )
        )

    def refuse(self, caller: Caller, event: AuditEvent, *, targets: Iterable[UUID] = (), code: str) -> None:
        """Record a refusal in a transaction of its own, before the caller hears of it."""
        with self._database.transaction(caller.scope) as connection:
            self.write(connection, caller, event, outcome=Outcome.REFUSED, targets=targets, detail={"code": code})

    def credential_refused(self, *, request_id: str, client: str, face: str, count: int, code: str) -> None:
        """Record refused credentials in the trail of the service's own tenant, `count` of them in one row."""
        caller = Caller(service_principal(SYSTEM_TENANT), request_id=request_id, client=client, face=face)
        with self._database.transaction(caller.scope) as connection:
            self.write(
                connection,
                caller,
                AuditEvent.CREDENTIAL_REFUSED,
                outcome=Outcome.REFUSED,
                detail={"code": code, "count": count},
            )

    def mac(self, scope: Scope, value: str) -> bytes:
        """Return the tenant's HMAC-SHA256 of a value, so that "was this searched for?" can be answered later."""
        secret = self._keyring.tenant_secret(scope.tenant_id, "audit-values")
        return hmac.digest(secret, value.encode(), hashlib.sha256)


def printable(client: str) -> str:
    """Return untrusted text from a header, shortened and without anything that a log or a terminal would obey."""
    return "".join(character for character in client[:_CLIENT_CHARS] if character.isprintable())
