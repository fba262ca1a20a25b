"""A row of the trail as it is read, and as JSON: the same for lists, streams and the tail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from service.audit.tables import AuditRow

audit_table: Final[Any] = AuditRow.__table__  # type: ignore[attr-defined]
#: The condition, in SQL, on rows before which no other can appear any more: what commits later comes behind them.
SETTLED: Final = "xid < public.audit_order(pg_snapshot_xmin(pg_current_snapshot()))"


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the trail. People are surrogates; `value_mac` holds 32 bytes for each text."""

    tenant_id: UUID
    id: UUID
    seq: int
    xid: int
    at: datetime
    event: str
    outcome: str
    principal_id: UUID | None
    acting_subject_id: UUID | None
    subject_ids: tuple[UUID, ...]
    connector: str | None
    client: str
    face: str
    request_id: str
    permissions: tuple[str, ...]
    purpose: str | None
    target_ids: tuple[UUID, ...]
    result_ids: tuple[UUID, ...]
    query_mac: bytes | None
    value_mac: bytes | None
    detail: Mapping[str, Any]


def entry_of(row: Any) -> Entry:
    """Return a database row as an entry."""
    return Entry(
        tenant_id=row.tenant_id,
        id=row.id,
        seq=row.seq,
        xid=row.xid,
        at=row.at.astimezone(UTC),
        event=row.event,
        outcome=row.outcome,
        principal_id=row.principal_id,
        acting_subject_id=row.acting_subject_id,
        subject_ids=tuple(row.subject_ids),
        connector=row.connector,
        client=row.client,
        face=row.face,
        request_id=row.request_id,
        permissions=tuple(row.permissions),
        purpose=row.purpose,
        target_ids=tuple(row.target_ids),
        result_ids=tuple(row.result_ids),
        query_mac=None if row.query_mac is None else bytes(row.query_mac),
        value_mac=None if row.value_mac is None else bytes(row.value_mac),
        detail=row.detail,
    )


def document(entry: Entry) -> dict[str, Any]:
    """Return an entry as JSON: ids as text, times in ISO 8601 UTC, HMACs in hexadecimal."""
    return {
        "id": str(entry.id),
        "at": entry.at.isoformat(),
        "event": entry.event,
        "outcome": entry.outcome,
        "tenant_id": str(entry.tenant_id),
        "principal_id": _text(entry.principal_id),
        "acting_subject_id": _text(entry.acting_subject_id),
        "subject_ids": _texts(entry.subject_ids),
        "connector": entry.connector,
        "client": entry.client,
        "face": entry.face,
        "request_id": entry.request_id,
        "permissions": list(entry.permissions),
        "purpose": entry.purpose,
        "target_ids": _texts(entry.target_ids),
        "result_ids": _texts(entry.result_ids),
        "query_mac": entry.query_mac.hex() if entry.query_mac is not None else None,
        "value_mac": entry.value_mac.hex() if entry.value_mac is not None else None,
        "detail": dict(entry.detail),
        "seq": entry.seq,
        "xid": entry.xid,
    }


def _text(one: UUID | None) -> str | None:
    return None if one is None else str(one)


def _texts(ids: tuple[UUID, ...]) -> list[str]:
    return [str(one) for one in ids]
