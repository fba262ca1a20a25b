"""Settles a database before it is served: what must stay done is done again, and a restore is declared and signed.

A database that is restored, with our tools or without, is behind the journal of tombstones and behind the checkpoints
that left it. Both lie outside of it, so that every start sees it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import text

from service import clock
from service.audit.checkpoints import Checkpoint
from service.audit.events import AuditEvent
from service.audit.moves import TombstoneApplied
from service.audit.restoring import Epoch, Restoring, counts_anew
from service.audit.trail import Trail
from service.errors import ConfigurationError, LegalHold
from service.scope import SYSTEM_TENANT, TenantId, installation_caller
from service.storage.database import Database
from service.storage.keyring import Keyring
from service.storage.tombstones import Tombstone, TombstoneKind, Tombstones

_log = logging.getLogger("memvault.restore")
#: One process settles at a time; the number is 'mvsettle'.
_LOCK: Final = 0x6D76736574746C65
_EXISTS: Final = text("SELECT 1 FROM tenants WHERE id = :tenant")
_TAKE_LOCK: Final = text("SELECT pg_advisory_xact_lock(:lock)")
#: Seconds that a transaction takes at most, as a rule, from its line in the journal to its commit, and between looks.
_MOMENT: Final = 1.0
_PAUSE: Final = 0.05

#: Applies a tombstone again. Doing so twice is harmless. A LegalHold says that something of it stays until a release.
Replay = Callable[[Tombstone], object]


@dataclass(frozen=True, slots=True)
class Settled:
    """What was done: tombstones applied again, tombstones that the journal lacked, and the declared restore."""

    applied: int = 0
    recovered: int = 0
    epoch: Epoch | None = None

    @property
    def restored(self) -> bool:
        """Whether the database was found to be an earlier state."""
        return self.epoch is not None or self.applied > 0


class Settling:
    """Brings a database up to what was done after the state that it is in."""

    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        trail: Trail,
        tombstones: Tombstones,
        replays: Mapping[TombstoneKind, Replay],
    ) -> None:
        self._keyring = keyring
        self._database = database
        self._trail = trail
        self._tombstones = tombstones
        self._replays = replays

    def settle(
        self, find_last: Callable[[], Checkpoint | None] | None, restoring: Restoring | None, owner: Database | None
    ) -> Settled:
        """Apply later tombstones, then declare the restore if there is a checkpoint that the database is behind.

        `find_last` returns that, where this process can sign; it is asked once no other is at this. Before anything is
        written the order of the trail is taken up behind what is in it. What a hold keeps from being erased again stops
        nothing: it is logged, not noted as applied, and tried again at each start.

        Raises:
            ConfigurationError, Conflict: when it cannot be done here; nothing must be served then.
            TombstonesDamaged: when the journal is not what was written.
        """
        with closing(Database(self._database.dsn, pool_size=1)) as apart, apart.tenant_blind() as connection:
            # Held for the whole time by a transaction that does nothing else.
            connection.execute(_TAKE_LOCK, {"lock": _LOCK})
            last: Checkpoint | None = None
            if restoring is not None and find_last is not None:
                last = find_last()
                restoring.take_up(owner)
            elif counts_anew(self._database):
                raise ConfigurationError(
                    "the database was restored to an earlier state, and this process cannot sign that: start the "
                    "process that runs the worker first, or run `memvault audit restored` where the signing key is"
                )
            applied, recovered = self._compare_tombstones()
            epoch = None if restoring is None or last is None else restoring.declare(last, owner)
        settled = Settled(applied, recovered, epoch)
        if settled.restored:
            _log.warning(
                "the database is an earlier state; what came after it was applied again",
                extra={"applied": applied, "epoch": None if epoch is None else epoch.checkpoint.body.number},
            )
        return settled

    def pending(self, tenant_id: TenantId, *told: Callable[[Tombstone], bool]) -> int:
        """Return how many tombstones of a tenant the database lacks; it is not to be read while there are such.

        Left out are those that one of `told` gives a reason for: holds keep all that is left, or it is being removed at
        present.
        """
        theirs = [one for one in self._tombstones.all() if one.tenant_id == tenant_id]
        noted = self._noted()
        lacking = [one for one in theirs if one.id not in noted and not any(tells(one) for tells in told)]
        # Again, for a moment: what is removed, revoked or held just now is in the journal before it is in the database.
        until = clock.monotonic() + _MOMENT
        while lacking:
            noted = self._noted()
            lacking = [one for one in lacking if one.id not in noted]
            if not lacking or clock.monotonic() >= until:
                break
            time.sleep(_PAUSE)
        return len(lacking)

    def _noted(self) -> Mapping[UUID, Tombstone]:
        with self._database.tenant_blind() as connection:
            return self._tombstones.noted(connection)

    def _compare_tombstones(self) -> tuple[int, int]:
        noted = self._noted()
        applied, known = 0, set()
        held: list[Tombstone] = []
        for tombstone in self._tombstones.all():
            known.add(tombstone.id)
            if tombstone.id in noted:
                continue
            if self._apply(tombstone) is None:
                applied += 1
            else:
                held.append(tombstone)
        for tombstone in held:
            # Once more: its hold may have been released by a line that comes after it.
            if (refusal := self._apply(tombstone)) is None:
                applied += 1
            else:
                _log.error(
                    "what was erased is held in this database, and stays until a start after the release",
                    extra={"kind": tombstone.kind.value, "holds": [str(one) for one in refusal.hold_ids]},
                )
        missing = [tombstone for tombstone in noted.values() if tombstone.id not in known]
        for tombstone in missing:
            # It may be the keyring that went back, and has keys again that were destroyed.
            if tombstone.kind is TombstoneKind.TENANT_REMOVED:
                self._keyring.destroy_tenant(tombstone.tenant_id)
            elif tombstone.kind is TombstoneKind.SUBJECT_ERASED:
                for subject_id in tombstone.ids:
                    self._keyring.destroy_subject(tombstone.tenant_id, subject_id)
            self._tombstones.add(tombstone)
        return applied, len(missing)

    def _apply(self, tombstone: Tombstone) -> LegalHold | None:
        """Apply a tombstone again and note it, or return what refuses a part of it at least."""
        replay = self._replays.get(tombstone.kind)
        if replay is None:
            raise ConfigurationError(f"{self._tombstones.place}: nothing here can apply {tombstone.kind.value}")
        try:
            replay(tombstone)
        except LegalHold as refusal:
            return refusal
        self._note(tombstone)
        return None

    def _note(self, tombstone: Tombstone) -> None:
        with self._database.tenant_blind() as connection:
            exists = connection.execute(_EXISTS, {"tenant": tombstone.tenant_id}).scalar() is not None
        # The trail of a tenant that the restored database does not know (yet, or any more) is the installation's.
        caller = installation_caller(tombstone.tenant_id if exists else SYSTEM_TENANT)
        erased = tombstone.kind is TombstoneKind.SUBJECT_ERASED
        with self._database.transaction(caller.scope) as connection:
            self._trail.write(
                connection,
                caller,
                AuditEvent.TOMBSTONE_APPLIED,
                subjects=tombstone.ids if erased else (),
                targets=() if erased else tombstone.ids,
                detail=TombstoneApplied(kind=tombstone.kind),
            )
            self._tombstones.note(connection, tombstone)
