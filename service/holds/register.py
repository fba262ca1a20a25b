"""The register of holds: writes holds and releases, sealed where they hold content, and reads them back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Select, func, insert, select
from sqlalchemy.dialects.postgresql import insert as upsert

from service import clock
from service.filters.ast import Node
from service.holds.guard import is_live
from service.holds.membership import filter_place
from service.holds.tables import HoldMemberRow, HoldReleaseRow, HoldRow
from service.scope import PrincipalKind, Scope
from service.storage.encryption import Place
from service.storage.kept_filters import open_filter, seal_filter, tenant_cipher
from service.storage.keyring import Keyring

_holds: Final[Any] = HoldRow.__table__  # type: ignore[attr-defined]
_members: Final[Any] = HoldMemberRow.__table__  # type: ignore[attr-defined]
_releases: Final[Any] = HoldReleaseRow.__table__  # type: ignore[attr-defined]


class HoldState(StrEnum):
    """Whether a hold still keeps its members."""

    LIVE = "live"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class Signature:
    """Who placed or released a hold: the credential, and the person behind it."""

    principal_id: UUID
    kind: PrincipalKind
    person_id: UUID


@dataclass(frozen=True, slots=True)
class StoredHold:
    """A hold, opened, with subjects as surrogates. It covers subjects, a filter, or with neither single memories."""

    id: UUID
    name: str
    subject_ids: tuple[UUID, ...]
    where: Node | None
    reason: str
    placed: Signature
    placed_at: datetime
    members: int
    released: Signature | None = None
    release_reason: str | None = None
    released_at: datetime | None = None

    @property
    def state(self) -> HoldState:
        """Whether the hold still keeps its members."""
        return HoldState.LIVE if self.released is None else HoldState.RELEASED


class Register:
    """The holds of all tenants. Every method works inside the caller's transaction."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def lock(self, connection: Connection) -> None:
        """Keep everybody from writing memories of the tenant until this transaction ends; waits for who does now."""
        connection.execute(select(func.hold_exclusive()))

    def place(
        self,
        connection: Connection,
        scope: Scope,
        hold_id: UUID,
        name: str,
        *,
        subject_ids: Sequence[UUID] | None,
        where: Node | None,
        reason: str,
        placed: Signature,
        at: datetime | None = None,
    ) -> bool:
        """Write a hold; tell whether its name was free."""
        cipher = tenant_cipher(self._keyring, scope)
        row = {
            "tenant_id": scope.tenant_id,
            "id": hold_id,
            "name": name,
            "subject_ids": None if subject_ids is None else list(subject_ids),
            "filter": None if where is None else seal_filter(self._keyring, scope, where, filter_place(scope, hold_id)),
            "reason": cipher.seal(reason.encode(), Place(scope.tenant_id, "holds", hold_id, "reason")),
            "placed_by": placed.principal_id,
            "placed_kind": placed.kind.value,
            "placed_person": placed.person_id,
            "placed_at": at or clock.now(),
        }
        statement = upsert(_holds).values(**row).on_conflict_do_nothing(constraint="holds_name")
        return connection.execute(statement.returning(_holds.c.id)).first() is not None

    def release(
        self,
        connection: Connection,
        scope: Scope,
        hold_id: UUID,
        *,
        reason: str,
        released: Signature,
        at: datetime | None = None,
    ) -> None:
        """Write the end of a hold. The database refuses one by the person who placed it."""
        cipher = tenant_cipher(self._keyring, scope)
        connection.execute(
            insert(_releases).values(
                tenant_id=scope.tenant_id,
                hold_id=hold_id,
                reason=cipher.seal(reason.encode(), Place(scope.tenant_id, "hold_releases", hold_id, "reason")),
                released_by=released.principal_id,
                released_kind=released.kind.value,
                released_person=released.person_id,
                released_at=at or clock.now(),
            )
        )

    def find(self, connection: Connection, scope: Scope, hold_id: UUID, *, lock: bool = False) -> StoredHold | None:
        """Return a hold, or None. `lock` lets nobody else release it until this transaction ends."""
        if lock:
            # Not a row lock: these rows cannot be updated, so that the application role may not lock them either.
            connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(str(hold_id), 1))))
        row = connection.execute(_query().where(_holds.c.tenant_id == scope.tenant_id, _holds.c.id == hold_id)).first()
        return None if row is None else self._opened(scope, row)

    def page(
        self, connection: Connection, scope: Scope, state: HoldState | None, *, skip: int, size: int
    ) -> tuple[list[StoredHold], int]:
        """Return one slice of the holds, the newest first, and how many there are in all."""
        conditions = [_holds.c.tenant_id == scope.tenant_id]
        if state is not None:
            conditions.append(is_live() if state is HoldState.LIVE else ~is_live())
        total = connection.execute(select(func.count()).select_from(_holds).where(*conditions)).scalar_one()
        query = _query().where(*conditions).order_by(_holds.c.placed_at.desc(), _holds.c.id.desc())
        rows = connection.execute(query.offset(skip).limit(size)).all()
        return [self._opened(scope, row) for row in rows], int(total)

    def members(
        self, connection: Connection, scope: Scope, hold_id: UUID, *, skip: int, size: int
    ) -> list[tuple[UUID, datetime]]:
        """Return one slice of a hold's members, by id, and since when each is one."""
        query = (
            select(_members.c.memory_id, _members.c.joined_at)
            .where(_members.c.tenant_id == scope.tenant_id, _members.c.hold_id == hold_id)
            .order_by(_members.c.memory_id)
        )
        rows = connection.execute(query.offset(skip).limit(size))
        return [(row.memory_id, row.joined_at) for row in rows]

    def _opened(self, scope: Scope, row: Any) -> StoredHold:
        cipher = tenant_cipher(self._keyring, scope)
        where = None
        if row.filter is not None:
            where = open_filter(self._keyring, scope, row.filter, filter_place(scope, row.id))
        released = release_reason = None
        if row.released_at is not None:
            released = Signature(row.released_by, PrincipalKind(row.released_kind), row.released_person)
            place = Place(scope.tenant_id, "hold_releases", row.id, "reason")
            release_reason = cipher.open(row.release_reason, place).decode()
        return StoredHold(
            id=row.id,
            name=row.name,
            subject_ids=tuple(row.subject_ids or ()),
            where=where,
            reason=cipher.open(row.reason, Place(scope.tenant_id, "holds", row.id, "reason")).decode(),
            placed=Signature(row.placed_by, PrincipalKind(row.placed_kind), row.placed_person),
            placed_at=row.placed_at,
            members=row.members,
            released=released,
            release_reason=release_reason,
            released_at=row.released_at,
        )


def _query() -> Select[Any]:
    members = (
        select(func.count())
        .where(_members.c.tenant_id == _holds.c.tenant_id, _members.c.hold_id == _holds.c.id)
        .scalar_subquery()
    )
    ends = (_releases.c.tenant_id == _holds.c.tenant_id) & (_releases.c.hold_id == _holds.c.id)
    return select(
        *_holds.columns,
        members.label("members"),
        _releases.c.reason.label("release_reason"),
        _releases.c.released_by,
        _releases.c.released_kind,
        _releases.c.released_person,
        _releases.c.released_at,
    ).select_from(_holds.outerjoin(_releases, ends))
