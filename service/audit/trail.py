"""Writes the trail, inside the transaction of what it tells of: when the row cannot be written, nothing happens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from psycopg.types.json import Jsonb
from sqlalchemy import Connection

from service import clock
from service.audit import connector_details, moves, tenant_details  # noqa: F401 - enter their models
from service.audit.details import DETAIL_OF, AccessDenied, CredentialRefused, Detail, Reason
from service.audit.events import AuditEvent, Outcome
from service.audit.fingerprints import Fingerprints, Kind
from service.errors import Conflict, InvalidInput, LegalHold, MinimumRetention, NameTaken
from service.observability.metrics import REFUSALS
from service.scope import SERVICE_ID, SYSTEM_TENANT, Action, Caller, Permission, service_principal
from service.storage.database import Database
from service.storage.keyring import Keyring
from service.storage.pipelining import MAY_WAIT

_CLIENT_CHARS: Final = 200
_PURPOSE_CHARS: Final = 200
#: Ids in one row; a longer list goes into further rows of the same transaction, so that none is left out.
_MOST_IDS: Final = 1000
_COLUMNS: Final = (
    "tenant_id",
    "id",
    "at",
    "event",
    "outcome",
    "principal_id",
    "acting_subject_id",
    "subject_ids",
    "connector",
    "client",
    "face",
    "request_id",
    "permissions",
    "purpose",
    "target_ids",
    "result_ids",
    "query_mac",
    "value_mac",
    "detail",
)
# One fixed text, so that the driver prepares it once a connection and nothing is compiled for each row.
_INSERT: Final = (
    f"INSERT INTO audit ({', '.join(_COLUMNS)}) VALUES ({', '.join(f'%({column})s' for column in _COLUMNS)})"
)


class Trail:
    """The audit trail. It can be added to and nothing else."""

    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database = database
        self._fingerprints = Fingerprints(keyring)

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
        texts: Sequence[str] = (),
        detail: Detail | None = None,
        may_wait: bool = False,
    ) -> None:
        """Add the row of one event; a list of over 1,000 ids makes further rows, numbered in their detail.

        `detail` is of the event's own model and may be left out where that has no required field. `query` and `texts`
        are kept as keyed HMACs only; `texts` go with `results` one by one, or with the one target where there are no
        results. Subjects stand with the one whose key makes the HMACs first.

        With `may_wait` the row goes with the next statement or the commit: where nothing is done in between that a
        failing transaction does not undo.

        Raises:
            TypeError: for the detail of another event.
        """
        subject_ids, target_ids, result_ids = list(subjects), list(targets), list(results)
        if detail is None:
            detail = DETAIL_OF[event]()
        elif type(detail) is not DETAIL_OF[event]:
            raise TypeError(f"{event}: its detail is {DETAIL_OF[event].__name__}, not {type(detail).__name__}")
        parts = max(1, -(-max(len(target_ids), len(result_ids)) // _MOST_IDS))
        principal = caller.principal
        tenant_id = principal.tenant_id
        row: dict[str, Any] = {
            "tenant_id": tenant_id,
            "event": event.value,
            "outcome": outcome.value,
            "principal_id": None if principal.id == SERVICE_ID else principal.id,
            "acting_subject_id": caller.acting,
            "subject_ids": subject_ids,
            "connector": principal.connector,
            "client": printable(caller.client),
            "face": caller.face,
            "request_id": caller.request_id,
            "permissions": _names(principal.permissions),
            "purpose": caller.purpose,
            "query_mac": None if query is None else self._fingerprints.of(tenant_id, subject_ids, Kind.QUERY, query),
        }
        for number in range(parts):
            part = slice(number * _MOST_IDS, (number + 1) * _MOST_IDS)
            document = detail.document()
            if parts > 1:
                document |= {"part": number + 1, "parts": parts}
            more = {
                "id": clock.new_id(),
                "at": clock.now(),
                "target_ids": target_ids[part],
                "result_ids": result_ids[part],
                "value_mac": self._fingerprints.of_texts(tenant_id, subject_ids, texts[part]) if texts else None,
                "detail": Jsonb(document),
            }
            connection.exec_driver_sql(_INSERT, row | more, execution_options=MAY_WAIT if may_wait else {})

    def refuse(
        self,
        caller: Caller,
        action: Action,
        reason: Reason,
        *,
        targets: Iterable[UUID] = (),
        holds: Sequence[UUID] = (),
    ) -> None:
        """Record a refusal in a transaction of its own, before the caller hears of it.

        An id that is malformed is answered like one that names nothing, and recorded as such.
        """
        REFUSALS.labels(reason.value).inc()
        with self._database.transaction(caller.scope) as connection:
            self.refused(connection, caller, action, reason, targets=targets, holds=holds)

    def refused(
        self,
        connection: Connection,
        caller: Caller,
        action: Action,
        reason: Reason,
        *,
        targets: Iterable[UUID] = (),
        holds: Sequence[UUID] = (),
    ) -> None:
        """Record, in the transaction of what is done, that a part of it was refused."""
        self.write(
            connection,
            caller,
            AuditEvent.ACCESS_DENIED,
            outcome=Outcome.NOT_FOUND if reason is Reason.MALFORMED else Outcome.REFUSED,
            targets=targets,
            detail=AccessDenied(action=action, reason=reason, holds=list(holds) or None),
        )

    @contextmanager
    def conflicts(self, caller: Caller, action: Action, *, targets: Iterable[UUID] = ()) -> Iterator[None]:
        """Record a Conflict that leaves this block, whose transaction must lie within: it takes its own rows back.

        What a hold or a rule keeps is recorded where the call is refused, with the holds' ids.
        """
        try:
            yield
        except (LegalHold, MinimumRetention):
            raise
        except Conflict as error:
            reason = Reason.TAKEN if isinstance(error, NameTaken) else Reason.CONFLICT
            self.refuse(caller, action, reason, targets=targets)
            raise

    def credential_refused(self, *, request_id: str, client: str, face: str, count: int, code: str) -> None:
        """Record refused credentials in the trail of the service's own tenant, `count` of them in one row."""
        caller = Caller(service_principal(SYSTEM_TENANT), request_id=request_id, client=client, face=face)
        with self._database.transaction(caller.scope) as connection:
            self.write(
                connection,
                caller,
                AuditEvent.CREDENTIAL_REFUSED,
                outcome=Outcome.REFUSED,
                detail=CredentialRefused(code=code, count=count),
            )


def printable(client: str) -> str:
    """Return untrusted text from a header, shortened and without anything that a log or a terminal would obey."""
    return "".join(character for character in client[:_CLIENT_CHARS] if character.isprintable())


def purpose_of(header: str | None) -> str | None:
    """Return what a caller says that a call is for (`X-Purpose`), as the trail keeps it, or None.

    Raises:
        InvalidInput: when it is over 200 characters or has one that cannot be printed.
    """
    if header is None or not header.strip():
        return None
    purpose = header.strip()
    if len(purpose) > _PURPOSE_CHARS or not purpose.isprintable():
        raise InvalidInput(f"X-Purpose: must have {_PURPOSE_CHARS} printable characters at most")
    return purpose


@lru_cache(maxsize=256)
def _names(permissions: frozenset[Permission]) -> list[str]:
    return sorted(permission.value for permission in permissions)
