"""How far each stream has sent the trail, and which process sends it: kept in the database, without user data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import BigInteger, Column, text
from sqlmodel import Field, SQLModel

from service import clock
from service.scope import TenantId
from service.storage.database import Database
from service.storage.erasers import keep
from service.storage.tables import moment


class AuditStreamRow(SQLModel, table=True):
    """A stream: the process that sends it, until when, and the newest seal that it has looked at. Tenant-blind."""

    __tablename__ = "audit_streams"

    stream: str = Field(primary_key=True)
    holder: UUID
    held_until: datetime = Field(sa_column=moment())
    seen: int = Field(sa_column=Column(BigInteger, nullable=False))


class AuditStreamPlaceRow(SQLModel, table=True):
    """The last row of a tenant that a stream has sent. Tenant-blind: numbers only."""

    __tablename__ = "audit_stream_places"

    stream: str = Field(primary_key=True)
    tenant_id: UUID = Field(primary_key=True, foreign_key="tenants.id")
    xid: int = Field(sa_column=Column(BigInteger, nullable=False))
    seq: int = Field(sa_column=Column(BigInteger, nullable=False))


keep(AuditStreamPlaceRow, "numbers only: how far a stream has sent the trail")


@dataclass(frozen=True, slots=True)
class News:
    """The tenants that may have rows to send, and the newest seal that this was told from."""

    tenants: Sequence[TenantId]
    seen: int


_HOLD: Final = text(
    "INSERT INTO audit_streams AS s (stream, holder, held_until, seen)"
    " VALUES (:stream, :holder, now() + make_interval(secs => :seconds), 0)"
    " ON CONFLICT (stream) DO UPDATE SET holder = excluded.holder, held_until = excluded.held_until"
    " WHERE s.holder = excluded.holder OR s.held_until < now() RETURNING stream"
)
_RELEASE: Final = text("UPDATE audit_streams SET held_until = '-infinity' WHERE stream = :stream AND holder = :holder")
# One statement, so one snapshot: a row that is new is noted as due, or the seal that took the note is there.
_NEWS: Final = text(
    "WITH seen AS (SELECT seen FROM audit_streams WHERE stream = :stream),"
    " sealed AS (SELECT tenant_id, number FROM audit_seals WHERE number > (SELECT seen FROM seen))"
    " SELECT array_agg(DISTINCT tenant_id) AS tenants,"
    "  coalesce((SELECT max(number) FROM sealed), (SELECT seen FROM seen)) AS seen"
    " FROM (SELECT tenant_id FROM sealed UNION ALL SELECT tenant_id FROM audit_due) AS news"
)
_SEEN: Final = text("UPDATE audit_streams SET seen = :seen WHERE stream = :stream AND seen < :seen")
_PLACE: Final = text("SELECT xid, seq FROM audit_stream_places WHERE stream = :stream AND tenant_id = :tenant")
_MOVE: Final = text(
    "INSERT INTO audit_stream_places AS p (stream, tenant_id, xid, seq) VALUES (:stream, :tenant, :xid, :seq)"
    " ON CONFLICT (stream, tenant_id) DO UPDATE SET xid = excluded.xid, seq = excluded.seq"
    " WHERE (p.xid, p.seq) < (excluded.xid, excluded.seq)"
)


class Places:
    """Where one stream stands. Everything here is safe to do twice."""

    def __init__(self, database: Database, stream: str) -> None:
        self._database = database
        self._stream = stream
        self._holder = clock.new_random_id()

    def hold(self, seconds: float) -> bool:
        """Take or keep the stream for some seconds; False while another process has it."""
        with self._database.tenant_blind() as connection:
            parameters = {"stream": self._stream, "holder": self._holder, "seconds": seconds}
            return connection.execute(_HOLD, parameters).first() is not None

    def release(self) -> None:
        """Let another process have the stream at once."""
        with self._database.tenant_blind() as connection:
            connection.execute(_RELEASE, {"stream": self._stream, "holder": self._holder})

    def news(self) -> News:
        """Return the tenants that may have rows beyond their places."""
        with self._database.tenant_blind() as connection:
            row = connection.execute(_NEWS, {"stream": self._stream}).one()
        return News([TenantId(one) for one in row.tenants or ()], int(row.seen or 0))

    def seen(self, number: int) -> None:
        """Note that the rows of every seal up to this one were sent."""
        with self._database.tenant_blind() as connection:
            connection.execute(_SEEN, {"stream": self._stream, "seen": number})

    def of(self, tenant_id: TenantId) -> tuple[int, int]:
        """Return the (xid, seq) of the last row of a tenant that was sent."""
        with self._database.tenant_blind() as connection:
            row = connection.execute(_PLACE, {"stream": self._stream, "tenant": tenant_id}).first()
        return (-1, -1) if row is None else (row.xid, row.seq)

    def move(self, tenant_id: TenantId, place: tuple[int, int]) -> None:
        """Note that a tenant's rows up to this one were sent."""
        parameters = {"stream": self._stream, "tenant": tenant_id, "xid": place[0], "seq": place[1]}
        with self._database.tenant_blind() as connection:
            connection.execute(_MOVE, parameters)
