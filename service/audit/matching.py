"""Answers "was this asked, or said?" by holding a value against the HMACs of the trail: rate-limited and audited."""

from __future__ import annotations

import hmac
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from sqlalchemy import ColumnElement, Connection, or_, select

from service import clock
from service.audit.details import AuditMatched, MatchBy, Reason
from service.audit.entries import Entry, audit_table, entry_of
from service.audit.events import AuditEvent, Outcome
from service.audit.fingerprints import MAC_BYTES, Fingerprints, Kind
from service.audit.reading import Checks, Name, Names
from service.audit.trail import Trail
from service.errors import Forbidden, NotFound, TooManyRequests
from service.scope import Action, Caller, Scope
from service.storage.database import Database
from service.storage.keyring import Keyring

_a: Final[Any] = audit_table.c
#: Rows that one call looks at, the newest ones.
_MOST_ROWS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Where:
    """What a value is held against: one row, the rows of one memory, or those of one subject (by name or surrogate)."""

    row_id: UUID | None = None
    memory_id: UUID | None = None
    name: Name | None = None
    subject_id: UUID | None = None

    @property
    def by(self) -> MatchBy:
        """Which of them."""
        if self.row_id is not None:
            return MatchBy.ROW
        return MatchBy.MEMORY if self.memory_id is not None else MatchBy.SUBJECT


@dataclass(frozen=True, slots=True)
class Match:
    """A row in which the value stands: as its query, or as the text of a memory."""

    row_id: UUID
    at: datetime
    event: str
    kind: Kind
    memory_id: UUID | None


@dataclass(frozen=True, slots=True)
class Matches:
    """The rows that match, the newest first, of `checked` rows; the key of `unmatchable` ones was destroyed."""

    matches: Sequence[Match]
    checked: int
    unmatchable: int


class Matching:
    """Holds values against the trail of the caller's tenant."""

    def __init__(
        self, database: Database, keyring: Keyring, trail: Trail, gate: Checks, subjects: Names, *, per_minute: int
    ) -> None:
        self._database = database
        self._trail = trail
        self._gate = gate
        self._subjects = subjects
        self._fingerprints = Fingerprints(keyring)
        self._limit = RateLimitItemPerMinute(per_minute)
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def match(self, caller: Caller, scope: Scope, value: str, where: Where) -> Matches:
        """Return the rows in which exactly this value was asked or said.

        Raises:
            Forbidden: without `audit:match`, or with a key that is bound to users.
            TooManyRequests: when the key has asked too often within a minute.
            NotFound: when the tenant has no such row or subject.
        """
        self._gate.check(caller, Action.MATCH_AUDIT)
        if caller.principal.users is not None:
            self._trail.refuse(caller, Action.MATCH_AUDIT, Reason.BOUND)
            raise Forbidden("this key is bound to users, and the trail is the whole tenant's: use a key that is not")
        self._throttle(caller)
        with self._database.transaction(scope) as connection:
            clause = self._clause(connection, scope, where)
            entries = [] if clause is None else _rows(connection, scope, clause)
            found = clause is not None and (where.row_id is None or bool(entries))
            matches, unmatchable = self._held_against(scope, value, entries, where.memory_id)
            answer = Matches(matches, len(entries), unmatchable)
            targets = [one for one in (where.row_id, where.memory_id) if one is not None]
            self._trail.write(
                connection,
                caller,
                AuditEvent.AUDIT_MATCHED,
                outcome=Outcome.DONE if found else Outcome.NOT_FOUND,
                subjects=[where.subject_id] if where.subject_id is not None else (),
                targets=targets,
                results=[one.row_id for one in matches],
                detail=AuditMatched(by=where.by, checked=answer.checked, matched=len(matches), unmatchable=unmatchable),
            )
        if not found:
            raise NotFound("the trail has no such row, or the tenant no such subject")
        return answer

    def _throttle(self, caller: Caller) -> None:
        key = (str(caller.principal.tenant_id), str(caller.principal.id))
        if self._limiter.hit(self._limit, *key):
            return
        until = self._limiter.get_window_stats(self._limit, *key).reset_time
        self._trail.refuse(caller, Action.MATCH_AUDIT, Reason.RATE)
        raise TooManyRequests(
            f"values may be matched {self._limit.amount} times a minute with one key; try again later",
            retry_after=math.ceil(until - clock.now().timestamp()),
        )

    def _clause(self, connection: Connection, scope: Scope, where: Where) -> ColumnElement[bool] | None:
        """Return the condition on the rows to look at, or None for a subject that does not exist."""
        if where.row_id is not None:
            return _is(_a.id == where.row_id)
        if where.memory_id is not None:
            wanted = [where.memory_id]
            return or_(_a.target_ids.contains(wanted), _a.result_ids.contains(wanted))
        subject_id = where.subject_id
        if where.name is not None:
            subject_id = self._subjects.find(connection, scope, [where.name]).get(where.name)
        # The first subject: its key made the HMACs.
        return None if subject_id is None else _is(_a.subject_ids[1] == subject_id)

    def _held_against(
        self, scope: Scope, value: str, entries: Iterable[Entry], memory_id: UUID | None
    ) -> tuple[list[Match], int]:
        matches: list[Match] = []
        unmatchable = 0
        macs: dict[tuple[Kind, UUID | None], bytes | None] = {}
        for entry in entries:
            first = entry.subject_ids[0] if entry.subject_ids else None
            readable = True
            for kind, kept in ((Kind.QUERY, entry.query_mac), (Kind.TEXT, entry.value_mac)):
                if kept is None:
                    continue
                if (kind, first) not in macs:
                    macs[kind, first] = self._fingerprints.of(scope.tenant_id, entry.subject_ids, kind, value)
                mac = macs[kind, first]
                if mac is None:
                    readable = False
                    continue
                for number, one in enumerate(_parts(kept)):
                    about = None if kind is Kind.QUERY else _said_of(entry, number)
                    if hmac.compare_digest(one, mac) and memory_id in (None, about if kind is Kind.TEXT else memory_id):
                        matches.append(Match(entry.id, entry.at, entry.event, kind, about))
            unmatchable += not readable
        return matches, unmatchable


def _is(clause: Any) -> ColumnElement[bool]:
    condition: ColumnElement[bool] = clause
    return condition


def _rows(connection: Connection, scope: Scope, clause: ColumnElement[bool]) -> list[Entry]:
    query = (
        select(audit_table)
        .where(_a.tenant_id == scope.tenant_id, clause, or_(_a.query_mac.is_not(None), _a.value_mac.is_not(None)))
        .order_by(_a.at.desc(), _a.id.desc())
        .limit(_MOST_ROWS)
    )
    return [entry_of(row) for row in connection.execute(query)]


def _parts(kept: bytes) -> list[bytes]:
    return [kept[start : start + MAC_BYTES] for start in range(0, len(kept), MAC_BYTES)]


def _said_of(entry: Entry, number: int) -> UUID | None:
    """Return the memory that the text of a number belongs to: the results one by one, else the one target."""
    ids = entry.result_ids or entry.target_ids
    return ids[number] if number < len(ids) else None
