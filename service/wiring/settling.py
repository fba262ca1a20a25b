"""Puts together what brings a restored database up to what was erased, revoked and held after that state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from service.audit.checkpoints import Checkpoint
from service.audit.keeper import Keeper
from service.audit.restoring import Restoring
from service.index.interface import Index
from service.portability.settling import Replay, Settled, Settling
from service.retention.work import ErasureWork
from service.storage.database import Database
from service.storage.tombstones import TombstoneKind
from service.wiring.sealing import seal_trail

if TYPE_CHECKING:
    from service.wiring import Installation


def settle(installation: Installation, erasing: ErasureWork, index: Index, *, restored: bool = False) -> Settled:
    """Bring the database up to date before it is served; the index is made again where that changed anything.

    `restored` says that it is known to be one that was restored; else that is told by where it stands.

    Raises:
        ConfigurationError: when it cannot be done by this process.
    """
    settings, database = installation.settings, installation.database
    signs = settings.worker_in_process or settings.embedded or settings.audit.signing_key is not None
    with ExitStack() as stack:
        restoring: Restoring | None = None
        owner: Database | None = None
        find_last: Callable[[], Checkpoint | None] | None = None
        if signs:
            sealing = seal_trail(installation)
            restoring = Restoring(database, sealing.ledger, installation.trail, sealing.keeper, sealing.trusted)
            find_last = partial(_find_last, sealing.keeper, index, restored=restored)
            if installation.connections.owner_dsn is not None:
                owner = Database(installation.connections.owner_dsn, pool_size=2)
                stack.callback(owner.close)
        keyring, trail, tombstones = installation.keyring, installation.trail, installation.tombstones
        settling = Settling(database, keyring, trail, tombstones, replays(installation, erasing))
        return settling.settle(find_last, restoring, owner)


def _find_last(keeper: Keeper, index: Index, *, restored: bool) -> Checkpoint | None:
    """Return the checkpoint that a restored database is behind, or None; the index is not to be searched then."""
    last = keeper.find_restored(certain=restored)
    if last is not None:
        # First of all: whatever ends this in the middle, searches wait until the index is the restored record's.
        index.mark_incomplete()
    return last


def replays(installation: Installation, erasing: ErasureWork) -> Mapping[TombstoneKind, Replay]:
    """Return what applies each kind of tombstone again."""

    return {
        TombstoneKind.SUBJECT_ERASED: erasing.erase_again,
        TombstoneKind.MEMORIES_ERASED: erasing.erase_again,
        TombstoneKind.TENANT_REMOVED: erasing.erase_again,
        TombstoneKind.KEY_REVOKED: installation.keys.revoke_again,
        TombstoneKind.HOLD_PLACED: installation.hold_journal.place_again,
        TombstoneKind.HOLD_RELEASED: installation.hold_journal.release_again,
    }
