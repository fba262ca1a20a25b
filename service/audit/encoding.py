"""The canonical bytes of a row of the trail: one line of JSON, which is what is hashed, exported and proved.

Postgres writes the line itself, the fields in a fixed order and none left out, so that reading the trail costs as
little as it can. Times are whole microseconds since 1970-01-01T00:00Z, bytes are hexadecimal, and `detail` is the text
of the JSON as Postgres keeps it: two rows that differ in anything never have the same line.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import orjson

#: Each field of the line with the SQL that it comes from. Every column of the table is here.
FIELDS: Final[dict[str, str]] = {
    "acting_subject_id": "acting_subject_id",
    "at": "(extract(epoch from at) * 1000000)::bigint",
    "client": "client",
    "connector": "connector",
    "detail": "detail::text",
    "event": "event",
    "face": "face",
    "id": "id",
    "outcome": "outcome",
    "permissions": "permissions",
    "principal_id": "principal_id",
    "purpose": "purpose",
    "query_mac": "encode(query_mac, 'hex')",
    "request_id": "request_id",
    "result_ids": "result_ids",
    "seq": "seq",
    "subject_ids": "subject_ids",
    "target_ids": "target_ids",
    "tenant_id": "tenant_id",
    "value_mac": "encode(value_mac, 'hex')",
    "xid": "xid",
}
#: The SQL expression of the line.
LINE: Final = f"json_build_object({', '.join(f'{name!r}, {sql}' for name, sql in FIELDS.items())})::text"
#: The order in which the rows of a tenant are sealed. All rows below the oldest running transaction are final, so what
#: commits late comes after what is sealed, however long ago it began.
ORDER: Final = "xid, seq"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class RowName:
    """What a report says of a row; None for what its line does not tell."""

    id: UUID | None
    at: datetime | None


def name_of(line: bytes) -> RowName:
    """Read id and time from a line, which may have been tampered with."""
    try:
        found: Any = orjson.loads(line)
        return RowName(UUID(found["id"]), _EPOCH + timedelta(microseconds=found["at"]))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return RowName(None, None)
