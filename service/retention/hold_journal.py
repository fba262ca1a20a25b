"""Holds and releases outlive a restore of the database: written into the journal of tombstones, done again from it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, select

from service import clock
from service.filters.render import as_wire
from service.holds.membership import add_members
from service.holds.register import Register, Signature, StoredHold
from service.retention.coverage import Coverage, Covering
from service.scope import PrincipalKind, Scope, TenantId, service_principal
from service.storage.database import Database
from service.storage.encryption import Place
from service.storage.kept_filters import read_filter, tenant_cipher
from service.storage.keyring import KeyDestroyed, Keyring
from service.storage.pipelining import send_waiting
from service.storage.record import memories_table, one_of
from service.storage.tombstones import Tombstone, TombstoneKind, Tombstones, tombstone_id

_m: Final[Any] = memories_table.c
#: A name of 64 characters at most: what is kept of one that is taken, and digits of the hold's id, which are random.
_NAME_ROOM: Final = 51
_ID_DIGITS: Final = 12


class HoldJournal:
    """What the journal keeps of holds: ids in the open, everything else sealed under the tenant's key."""

    def __init__(self, database: Database, keyring: Keyring, coverage: Coverage, tombstones: Tombstones) -> None:
        self._database = database
        self._keyring = keyring
        self._coverage = coverage
        self._tombstones = tombstones
        self._register = Register(keyring)

    def placed(self, connection: Connection, scope: Scope, hold: StoredHold, members: Sequence[UUID]) -> None:
        """Write a new hold down, as the last thing before its transaction commits.

        Members of a hold on subjects are left out: a memory belongs to the same ones for ever, by which they are found.
        """
        value = {
            "name": hold.name,
            "subjects": [str(one) for one in hold.subject_ids],
            "filter": None if hold.where is None else as_wire(hold.where),
            "reason": hold.reason,
            "by": _told(hold.placed),
        }
        ids = [hold.id] if hold.subject_ids else [hold.id, *members]
        self._write(connection, scope, TombstoneKind.HOLD_PLACED, ids, value, hold.placed_at)

    def released(self, connection: Connection, scope: Scope, hold: StoredHold) -> None:
        """Write a release down, as the last thing before its transaction commits."""
        assert hold.released is not None
        value = {"reason": hold.release_reason, "by": _told(hold.released)}
        self._write(connection, scope, TombstoneKind.HOLD_RELEASED, [hold.id], value, hold.released_at or clock.now())

    def place_again(self, tombstone: Tombstone) -> None:
        """Place a hold in a database that was restored to a time before it; what it covers there is looked for anew.

        One whose transaction failed in its last step is placed too: it may have been acknowledged. Where another has
        its name by now, it gets the name with the end of its id.
        """
        scope = Scope.of(service_principal(tombstone.tenant_id))
        value = self._opened(scope, tombstone)
        if value is None:
            return
        hold_id, *members = tombstone.ids
        subject_ids = [UUID(one) for one in value["subjects"]] or None
        where = None if value["filter"] is None else read_filter(value["filter"])
        with self._database.transaction(scope) as connection:
            self._tombstones.note(connection, tombstone)
            self._register.lock(connection)
            if self._register.find(connection, scope, hold_id) is not None:
                return
            place = partial(
                self._register.place,
                connection,
                scope,
                hold_id,
                subject_ids=subject_ids,
                where=where,
                reason=value["reason"],
                placed=_read(value["by"]),
                at=tombstone.at,
            )
            if not place(value["name"]):
                place(f"{value['name'][:_NAME_ROOM]}-{hold_id.hex[-_ID_DIGITS:]}")
            there = connection.execute(select(_m.id).where(one_of(_m.id, members))).scalars()
            found = self._coverage.look(connection, scope, Covering(subject_ids, where)).ids
            add_members(connection, scope, hold_id, list(dict.fromkeys([*there, *found])))

    def release_again(self, tombstone: Tombstone) -> None:
        """Release a hold in a database that was restored to a time before its release."""
        scope = Scope.of(service_principal(tombstone.tenant_id))
        value = self._opened(scope, tombstone)
        if value is None:
            return
        (hold_id,) = tombstone.ids
        with self._database.transaction(scope) as connection:
            self._tombstones.note(connection, tombstone)
            hold = self._register.find(connection, scope, hold_id, lock=True)
            if hold is not None and hold.released is None:
                self._register.release(
                    connection,
                    scope,
                    hold_id,
                    reason=value["reason"],
                    released=_read(value["by"]),
                    at=tombstone.at,
                )

    def _write(
        self, connection: Connection, scope: Scope, kind: TombstoneKind, ids: Sequence[UUID], value: Any, at: datetime
    ) -> None:
        own = tombstone_id(kind, scope.tenant_id, ids[0])
        sealed = tenant_cipher(self._keyring, scope).seal_json(value, _place(scope.tenant_id, own))
        # A line cannot be taken back: whatever can still fail comes before it.
        send_waiting(connection)
        tombstone = self._tombstones.append(kind, scope.tenant_id, ids, tombstone=own, at=at, sealed=sealed)
        self._tombstones.note(connection, tombstone)

    def _opened(self, scope: Scope, tombstone: Tombstone) -> Any | None:
        """Return what was sealed, or None for a tenant that is not in this database or was removed."""
        with self._database.tenant_blind() as connection:
            if not _exists(connection, scope.tenant_id):
                return None
        assert tombstone.sealed is not None
        try:
            cipher = tenant_cipher(self._keyring, scope)
        except KeyDestroyed:
            return None
        return cipher.open_json(tombstone.sealed, _place(scope.tenant_id, tombstone.id))


def _exists(connection: Connection, tenant_id: TenantId) -> bool:
    found = connection.exec_driver_sql("SELECT 1 FROM tenants WHERE id = %s", (tenant_id,))
    return found.first() is not None


def _told(signature: Signature) -> dict[str, str]:
    return {
        "principal": str(signature.principal_id),
        "kind": signature.kind.value,
        "person": str(signature.person_id),
    }


def _read(value: Any) -> Signature:
    return Signature(UUID(value["principal"]), PrincipalKind(value["kind"]), UUID(value["person"]))


def _place(tenant_id: TenantId, tombstone: UUID) -> Place:
    return Place(tenant_id, "tombstones", tombstone, "sealed")
