"""Which rows of the trail a reader asks for, as SQL, and the place in a list as a cursor that cannot be made up."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import struct
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, or_

from service.audit.details import Filter
from service.audit.entries import audit_table
from service.audit.events import ACTIVITY_OF, Activity, AuditEvent, Outcome
from service.errors import InvalidInput
from service.records import SubjectNames

_a: Final[Any] = audit_table.c
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_POSITION: Final = struct.Struct(">q16sq")
#: How far below its end a snapshot has a transaction that was under way: four bytes each.
_BELOW: Final = struct.Struct(">I")
_MAC_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Selection:
    """A filter of the trail; what is not set does not narrow.

    `until` is not included; all `subjects` must stand in a row. `names` are subjects as callers write them, of which
    the action makes surrogates.
    """

    since: datetime | None = None
    until: datetime | None = None
    principal_id: UUID | None = None
    names: SubjectNames = field(default_factory=SubjectNames)
    subjects: tuple[UUID, ...] = ()
    events: frozenset[AuditEvent] = frozenset()
    activity: Activity | None = None
    memory_id: UUID | None = None
    outcomes: frozenset[Outcome] = frozenset()
    request_id: str | None = None
    connector: str | None = None

    def filters(self) -> list[Filter]:
        """Return by what is filtered, without the values: what the trail keeps of how it was read."""
        given = {
            Filter.SINCE: self.since is not None,
            Filter.UNTIL: self.until is not None,
            Filter.PRINCIPAL: self.principal_id is not None,
            Filter.SUBJECT: bool(self.names) or bool(self.subjects),
            Filter.EVENT: bool(self.events),
            Filter.ACTIVITY: self.activity is not None,
            Filter.MEMORY: self.memory_id is not None,
            Filter.OUTCOME: bool(self.outcomes),
            Filter.REQUEST: self.request_id is not None,
            Filter.CONNECTOR: self.connector is not None,
        }
        return [name for name, is_given in given.items() if is_given]

    def clauses(self) -> list[ColumnElement[bool]]:
        """Return the conditions on the table, `names` left out."""
        clauses: list[ColumnElement[bool]] = []
        if self.since is not None:
            clauses.append(_a.at >= self.since)
        if self.until is not None:
            clauses.append(_a.at < self.until)
        for column, value in (
            (_a.principal_id, self.principal_id),
            (_a.request_id, self.request_id),
            (_a.connector, self.connector),
        ):
            if value is not None:
                clauses.append(column == value)
        for subject in self.subjects:
            clauses.append(or_(_a.subject_ids.contains([subject]), _a.acting_subject_id == subject))
        if self.events:
            clauses.append(_a.event.in_(sorted(self.events)))
        if self.activity is not None:
            kinds = [event.value for event, activity in ACTIVITY_OF.items() if activity is self.activity]
            clauses.append(_a.event.in_(kinds))
        if self.outcomes:
            clauses.append(_a.outcome.in_(sorted(self.outcomes)))
        if self.memory_id is not None:
            wanted = [self.memory_id]
            clauses.append(or_(_a.target_ids.contains(wanted), _a.result_ids.contains(wanted)))
        return clauses

    def digest(self) -> bytes:
        """Return a digest of the filter, by which a cursor is tied to it."""
        plain = replace(self, events=frozenset(), outcomes=frozenset())
        return hashlib.sha256(f"{plain!r}{sorted(self.events)}{sorted(self.outcomes)}".encode()).digest()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was committed at a moment, in the trail's order: all before `end` but what was under way then."""

    end: int
    under_way: tuple[int, ...]

    def clauses(self) -> list[ColumnElement[bool]]:
        """Return the conditions on the table."""
        return [_a.xid < self.end, _a.xid.not_in(self.under_way)]


@dataclass(frozen=True, slots=True)
class Place:
    """The last row of a page, behind which the next one begins, and what its walk sees."""

    at: datetime
    row_id: UUID
    snapshot: Snapshot


def write_cursor(secret: bytes, selection: Selection, *, newest_first: bool, place: Place) -> str:
    """Return a cursor: good for the tenant whose secret this is, this filter and this order, and nothing else."""
    micros = (place.at - _EPOCH) // timedelta(microseconds=1)
    end = place.snapshot.end
    packed = _POSITION.pack(micros, place.row_id.bytes, end)
    packed += b"".join(_BELOW.pack(end - xid) for xid in place.snapshot.under_way)
    return base64.urlsafe_b64encode(packed + _mac(secret, selection, newest_first, packed)).decode()


def read_cursor(secret: bytes, selection: Selection, *, newest_first: bool, cursor: str) -> Place:
    """Return the place of a cursor.

    Raises:
        InvalidInput: for one that is broken, of another tenant, of another filter or order, or of an earlier release.
    """
    try:
        raw = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raw = b""
    packed, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
    genuine = len(packed) >= _POSITION.size and hmac.compare_digest(mac, _mac(secret, selection, newest_first, packed))
    if not genuine:
        raise InvalidInput("cursor: is not one that this list gave out for these filters; start again without it")
    micros, row_id, end = _POSITION.unpack_from(packed)
    under_way = tuple(end - below for (below,) in _BELOW.iter_unpack(packed[_POSITION.size :]))
    return Place(_EPOCH + timedelta(microseconds=micros), UUID(bytes=row_id), Snapshot(end, under_way))


def _mac(secret: bytes, selection: Selection, newest_first: bool, packed: bytes) -> bytes:
    return hmac.digest(secret, packed + bytes([newest_first]) + selection.digest(), hashlib.sha256)[:_MAC_BYTES]
