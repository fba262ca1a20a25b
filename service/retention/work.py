"""Carries erasures out: due dates, rows in batches, then for all that wait one physical pass, the check, the receipt.

Each step may be run again after a crash and goes on from where it was. What a step has to do next stands in the table
`erasure_work`, which the sweep reads, so that an erasure whose job was lost is taken up again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import Connection

from service import clock
from service.audit.details import Erased, ErasureCompleted, ErasureContinued
from service.audit.events import AuditEvent
from service.audit.moves import TombstoneApplied
from service.audit.signing import Signer
from service.auth.endings import journal_ends_with_connector
from service.errors import LegalHold
from service.holds.guard import refusals_among, refuse_held_tenant
from service.memories.entities import Entities, Note
from service.memories.events import settle_unapproved
from service.memories.indexing import Indexing
from service.memories.stores import Stores
from service.observability.metrics import ERASED_ROWS, ERASURES
from service.records import Change
from service.retention.connectors import ConnectorRows
from service.retention.erasures import Erasures
from service.retention.ledger import Erasure, ErasureKind, ErasureStatus, Ledger
from service.retention.leftovers import Leftovers
from service.retention.obstacles import Obstacles
from service.retention.physical import Physical, PhysicalPass
from service.retention.receipts import Checked, body_of, sign, what_remains
from service.scope import Caller, Scope, TenantId, installation_caller, service_principal
from service.storage.erasers import erase_connector, erase_tenant, strip_tenant
from service.storage.erasing import Removed, lock_memories, purge_tenant_memories, remove_memories
from service.storage.outbox import GONE
from service.storage.tombstones import Tombstone, TombstoneKind, tombstone_id
from service.tenants.actions import begin_deleting, end_deleting
from service.tenants.subjects import is_erasing

_AT_ONCE: Final = 1000
#: How long an erasure that a hold came before is put off before it is looked at again.
_HELD_FOR: Final = timedelta(hours=1)
_log: Final = logging.getLogger("memvault.erasing")


class ErasureWork:
    """Does what erasures have to do next."""

    def __init__(
        self,
        stores: Stores,
        indexing: Indexing,
        entities: Entities,
        erasures: Erasures,
        connectors: ConnectorRows,
        obstacles: Obstacles,
        physical: PhysicalPass,
        leftovers: Leftovers,
        signer: Callable[[], Signer],
    ) -> None:
        self._stores = stores
        self._indexing = indexing
        self._entities = entities
        self._erasures = erasures
        self._connectors = connectors
        self._obstacles = obstacles
        self._physical = physical
        self._signer = signer
        self._ledger = Ledger(stores.keyring)
        self._one_pass = threading.Lock()
        self._leftovers = leftovers

    def run(self, tenant_id: str, erasure_id: str) -> None:
        """Do what one erasure has to do next, the handler of the queue.

        Raises:
            Unavailable: when a store is away or busy, with the erasure as it was: the same job is to run again later.
            LegalHold: when a hold came before the rest of it, which is put off.
        """
        scope, known = _scope(TenantId(UUID(tenant_id))), UUID(erasure_id)
        with self._stores.database.transaction(scope) as connection:
            erasure = self._ledger.find(connection, scope, known)
            if erasure is not None and erasure.status is ErasureStatus.SCHEDULED:
                erasure = self._begun(connection, scope, erasure)
        if erasure is None:
            return
        if erasure.status is ErasureStatus.RUNNING:
            try:
                self._remove(scope, erasure)
            except LegalHold as error:
                with self._stores.database.transaction(scope) as connection:
                    at = clock.now() + _HELD_FOR
                    self._ledger.postpone(connection, scope, known, at, blocked_by=error.code)
                raise
        elif erasure.status is ErasureStatus.PURGING:
            self.purge()

    def finish(self, tenant_id: TenantId, erasure_id: UUID) -> None:
        """Carry one erasure out to its end, without a queue: for a command with no service running."""
        self.run(str(tenant_id), str(erasure_id))
        self.purge()

    def resume(self) -> int:
        """Put what has something to do, and no job, into the queue; return how many."""
        with self._stores.database.tenant_blind() as connection:
            lost = self._ledger.due(connection, self._erasures.has_job)
            for tenant_id, erasure_id in lost:
                self._erasures.defer(connection, _scope(tenant_id), erasure_id)
        return len(lost)

    def running(self, scope: Scope) -> set[UUID]:
        """Return the subjects of the tenant whose rows an erasure removes at present."""
        with self._stores.database.transaction(scope) as connection:
            return self._ledger.running_subjects(connection)

    def purge(self) -> int:
        """Make one physical pass for all erasures whose rows are gone, look for what is left, sign their receipts.

        Raises:
            Unavailable: when a store is away or busy; nothing is lost, the pass is made again later.
        """
        with self._one_pass:
            waiting = self._purging()
            if not waiting:
                return 0
            tenants = any(erasure.kind is ErasureKind.TENANT for _, erasure in waiting)
            physical = self._physical.make(names=tenants)
            return sum(self._complete(scope, erasure, physical) for scope, erasure in waiting)

    def _purging(self) -> Sequence[tuple[Scope, Erasure]]:
        with self._stores.database.tenant_blind() as connection:
            listed = self._ledger.open(connection)
        found = []
        for tenant_id, erasure_id in listed:
            scope = _scope(tenant_id)
            with self._stores.database.transaction(scope) as connection:
                erasure = self._ledger.find(connection, scope, erasure_id)
            if erasure is not None and erasure.status is ErasureStatus.PURGING:
                found.append((scope, erasure))
        return found

    def _begun(self, connection: Connection, scope: Scope, erasure: Erasure) -> Erasure:
        """Begin a scheduled erasure, or put it off again."""
        try:
            return self._erasures.reconsider(connection, _caller(erasure), scope, erasure)
        except LegalHold as error:
            self._ledger.postpone(connection, scope, erasure.id, clock.now() + _HELD_FOR, blocked_by=error.code)
            return self._ledger.get(connection, scope, erasure.id)

    def _remove(self, scope: Scope, erasure: Erasure) -> None:
        """Remove all rows, in batches that each stand for themselves, then let the physical pass follow."""
        note = self._counting(scope, erasure)
        if erasure.subject_id is not None:
            self._entities.finish(scope, erasure.subject_id, note=note)
        elif erasure.kind is ErasureKind.TENANT:
            self._remove_tenant(scope, note)
        elif erasure.connector is not None:
            self._remove_connector(scope, erasure, erasure.connector, note)
        at = clock.now() + timedelta(seconds=self._stores.settings.erasure.physical_delay)
        with self._stores.database.transaction(scope) as connection:
            if self._still(connection, scope, erasure) is None:
                return
            self._ledger.removed(connection, scope, erasure.id, at)
            self._erasures.defer(connection, scope, erasure.id, at=at, purging=True)
        ERASURES.labels(erasure.kind.value, "removed").inc()

    def erase_again(self, tombstone: Tombstone) -> None:
        """Do again what a tombstone stands for, in a database that does not know of it. Doing so twice is harmless.

        Raises:
            LegalHold: when a hold covers something of it there, which stays, key included. Of single memories the
                others are gone.
        """
        scope = _scope(tombstone.tenant_id)
        if tombstone.kind is TombstoneKind.TENANT_REMOVED:
            with self._stores.database.transaction(scope) as connection:
                refuse_held_tenant(connection, scope)
                # From here on none is placed.
                begin_deleting(connection, scope.tenant_id)
            self._remove_tenant(scope, None)
        elif tombstone.kind is TombstoneKind.MEMORIES_ERASED:
            self._erase_memories_again(scope, tombstone)
        else:
            for subject_id in tombstone.ids:
                self._erase_subject_again(scope, subject_id)

    def _erase_memories_again(self, scope: Scope, tombstone: Tombstone) -> None:
        with self._stores.database.transaction(scope) as connection:
            refusals = refusals_among(connection, scope, tombstone.ids, history=True)
            left = lock_memories(connection, tombstone.ids)
            removed = remove_memories(connection, scope, [one for one in left if one not in refusals])
            held = [refusals[one] for one in left if one in refusals]
            if held and removed.memory_ids:
                # The whole is told once the rest could follow.
                self._stores.trail.write(
                    connection,
                    installation_caller(scope.tenant_id),
                    AuditEvent.TOMBSTONE_APPLIED,
                    targets=removed.memory_ids,
                    detail=TombstoneApplied(kind=tombstone.kind),
                )
        self._indexing.apply(scope, [], gone=dict.fromkeys(removed.memory_ids, GONE))
        if held:
            named = {id_: name for one in held for id_, name in zip(one.hold_ids, one.names, strict=True)}
            raise LegalHold(list(named.values()), hold_ids=list(named))

    def _erase_subject_again(self, scope: Scope, subject_id: UUID) -> None:
        with self._stores.database.transaction(scope) as connection:
            self._obstacles.refuse_again(connection, scope, subject_id)
            if not is_erasing(connection, subject_id):
                # From here on no hold is placed on anything of it.
                self._entities.begin(connection, scope, subject_id)
            erasure = self._ledger.find_running(connection, scope, subject_id)
        note = None if erasure is None else self._counting(scope, erasure)
        self._entities.finish(scope, subject_id, note=note)

    def _counting(self, scope: Scope, erasure: Erasure) -> Note:
        def note(connection: Connection, removed: Removed) -> None:
            self._count(connection, scope, erasure, removed)

        return note

    def _still(self, connection: Connection, scope: Scope, erasure: Erasure) -> Erasure | None:
        """Lock an erasure until the transaction ends and return it; None where another process has gone on with it.

        A command works beside the queue, so that two processes may be at the same erasure.
        """
        current = self._ledger.find(connection, scope, erasure.id, lock=True)
        if current is None or (current.status, current.removed_at) != (erasure.status, erasure.removed_at):
            return None
        return current

    def _remove_connector(self, scope: Scope, erasure: Erasure, name: str, note: Note) -> None:
        """Remove what came through a connector. What comes after another process has done so stays."""
        stores = self._stores
        with stores.database.transaction(scope) as connection:
            if self._still(connection, scope, erasure) is None:
                return
            journal_ends_with_connector(connection, stores.tombstones, scope, name)
            rows = erase_connector(connection, scope, name)
            cancelled = self._connectors.cancel(connection, scope, name)
            note(connection, Removed(rows={**rows, "events_cancelled": cancelled}))
        ended = False
        while not ended:
            with stores.database.transaction(scope) as connection:
                if self._still(connection, scope, erasure) is None:
                    return
                removed = self._connectors.remove(connection, scope, name, limit=_AT_ONCE)
                stores.announcer.announce(connection, scope, Change.DELETE, removed.memory_ids)
                if removed.memory_ids:
                    # After the deletion, which a trigger may refuse: what is in the journal is done at every start.
                    kind = TombstoneKind.MEMORIES_ERASED
                    tombstone = stores.tombstones.append(kind, scope.tenant_id, removed.memory_ids)
                    stores.tombstones.note(connection, tombstone)
                note(connection, removed)
            self._indexing.apply(scope, [], gone=dict.fromkeys(removed.memory_ids, GONE))
            ended = len(removed.memory_ids) < _AT_ONCE
        with stores.database.transaction(scope) as connection:
            if self._still(connection, scope, erasure) is None:
                return
            waiting = self._connectors.waiting(connection, scope, name)
            # Once more: a hold may have been placed since the erasure was begun.
            stores.waiting_holds.remove(connection, scope, waiting)
            settle_unapproved(connection, waiting)
            rest = {
                "messages": self._connectors.forget_messages(connection),
                "history": self._connectors.remove_history(connection, scope, name),
                "quarantine": len(waiting),
            }
            note(connection, Removed(rows=rest))

    def _remove_tenant(self, scope: Scope, note: Note | None) -> None:
        stores = self._stores
        kind = TombstoneKind.TENANT_REMOVED
        once = tombstone_id(kind, scope.tenant_id, scope.tenant_id)
        tombstone = stores.tombstones.append(kind, scope.tenant_id, [], tombstone=once)
        stores.keyring.destroy_tenant(scope.tenant_id)
        stores.subjects.forget_tenant(scope)
        ended = False
        while not ended:
            with stores.database.transaction(scope) as connection:
                removed = purge_tenant_memories(connection, scope, limit=_AT_ONCE)
                rows = dict(removed.rows)
                if not removed.memory_ids:
                    rows = erase_tenant(connection, scope, limit=_AT_ONCE)
                ended = not rows
                if ended:
                    rows = strip_tenant(connection, scope)
                    stores.tombstones.note(connection, tombstone)
                    if end_deleting(connection, scope.tenant_id):
                        principal = service_principal(scope.tenant_id)
                        caller = Caller(principal, request_id=str(tombstone.id), client="memvault", face="worker")
                        stores.trail.write(connection, caller, AuditEvent.TENANT_DELETED)
                if note is not None:
                    note(connection, Removed(removed.memory_ids, rows))
            self._indexing.apply(scope, [], gone=dict.fromkeys(removed.memory_ids, GONE))

    def _complete(self, scope: Scope, erasure: Erasure, physical: Physical) -> int:
        """Look for what is left; sign the receipt when that is nothing, else let the erasure run again."""
        checked = self._leftovers.look(scope, erasure)
        with self._stores.database.transaction(scope) as connection:
            # What was looked at and the physical pass are of the erasure as it was then.
            current = self._still(connection, scope, erasure)
            if current is None:
                return 0
            if checked.left:
                _log.error("an erasure left something and runs again", extra={"rows": checked.left})
                self._ledger.again(connection, scope, current.id)
                self._erasures.defer(connection, scope, current.id)
                return 0
            self._keep_receipt(connection, scope, current, checked, physical)
        ERASURES.labels(erasure.kind.value, "completed").inc()
        return 1

    def _keep_receipt(
        self, connection: Connection, scope: Scope, erasure: Erasure, checked: Checked, physical: Physical
    ) -> None:
        at, settings, document = clock.now(), self._stores.settings.erasure, physical.document()
        remains = what_remains(
            erasure,
            at=at,
            backup_days=settings.backup_days,
            keyring_backup_days=settings.keyring_backup_days,
            archived=physical.files.wal_archived or not self._stores.settings.embedded,
            rows=self._stores.settings.keyring.url is not None,
        )
        receipt = sign(body_of(erasure, at=at, checked=checked, physical=document, remains=remains), self._signer())
        self._ledger.complete(connection, scope, erasure.id, at=at, physical=document, receipt=receipt)
        self._stores.trail.write(
            connection,
            _caller(erasure),
            AuditEvent.ERASURE_COMPLETED,
            subjects=_subjects(erasure),
            targets=[erasure.id],
            detail=ErasureCompleted(
                kind=Erased(erasure.kind.value),
                memories=erasure.removed.get("memories", 0),
                physical=physical.files.done,
            ),
        )

    def _count(self, connection: Connection, scope: Scope, erasure: Erasure, removed: Removed) -> None:
        """Write down what one batch removed."""
        rows = {name: count for name, count in removed.rows.items() if count}
        if not rows:
            return
        self._ledger.count(connection, erasure.id, rows, sealed_elsewhere=removed.sealed_elsewhere)
        self._stores.trail.write(
            connection,
            _caller(erasure),
            AuditEvent.ERASURE_CONTINUED,
            subjects=_subjects(erasure),
            targets=removed.memory_ids,
            results=[erasure.id],
            detail=ErasureContinued(rows=rows),
        )
        for name, count in rows.items():
            ERASED_ROWS.labels(name).inc(count)


def _caller(erasure: Erasure) -> Caller:
    """Return as whom the service works on an erasure, whose id the trail has as the request's."""
    principal = service_principal(erasure.tenant_id)
    return Caller(principal, request_id=str(erasure.id), client="memvault", face="worker")


def _subjects(erasure: Erasure) -> list[UUID]:
    return [] if erasure.subject_id is None else [erasure.subject_id]


def _scope(tenant_id: TenantId) -> Scope:
    return Scope.of(service_principal(tenant_id))
