"""Erasures: asked for, refused, scheduled and read. What is asked for is done by `service.retention.work`."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Connection

from service.audit.details import ConnectorRemoved, Erased, ErasureBegun, ErasureRequested, ErasuresListed, Reason
from service.audit.events import AuditEvent, Outcome
from service.audit.trail import Trail
from service.errors import Forbidden, InvalidInput, NotFound
from service.holds.guard import refuse_held_subject
from service.memories.events import cancel_events
from service.memories.limits import check_characters, check_names
from service.policy.gate import Gate
from service.queue.tasks import Queue
from service.records import Page, SubjectNames
from service.retention.ledger import Erasure, ErasureKind, ErasureStatus, Ledger, Target
from service.retention.obstacles import Obstacles
from service.scope import SERVICE_ID, Action, Caller, Scope, TenantId, installation_caller
from service.storage.database import Database
from service.storage.keyring import Keyring
from service.storage.tombstones import Tombstone, TombstoneKind, Tombstones, tombstone_id
from service.tenants.actions import begin_deleting, is_leaving
from service.tenants.subjects import Subjects, is_erasing

#: The task that does what one erasure has to do next.
ERASE: Final = "erase"
_NAME_CHARS: Final = 255


class Erasures:
    """What a caller asks for. It needs no index, so that the command line can ask beside a running service."""

    def __init__(
        self,
        database: Database,
        keyring: Keyring,
        subjects: Subjects,
        trail: Trail,
        gate: Gate,
        queue: Queue,
        tombstones: Tombstones,
        obstacles: Obstacles,
    ) -> None:
        self._database = database
        self._keyring = keyring
        self._subjects = subjects
        self._trail = trail
        self._gate = gate
        self._queue = queue
        self._tombstones = tombstones
        self._obstacles = obstacles
        self._ledger = Ledger(keyring)

    def request(
        self, caller: Caller, scope: Scope, target: Target, *, action: Action = Action.REQUEST_ERASURE
    ) -> Erasure:
        """Ask for an erasure and return it: the one that is under way already, where there is one.

        One that was put off is begun once nothing keeps anything of it any more. The key of a subject is destroyed
        before this returns, unless a minimum retention puts the erasure off.

        Raises:
            InvalidInput: for a name that cannot be one, or a tenant, which only the installation erases.
            Forbidden: for a principal that is bound to users or to a connector.
            NotFound: when there is no such user, agent, app or run.
            LegalHold: when a legal hold covers something of it; nothing was done.
        """
        self._gate.check(caller, action)
        principal = caller.principal
        if principal.users is not None or principal.connector is not None:
            self._trail.refuse(caller, action, Reason.BOUND)
            raise Forbidden("a key that is bound to users or to a connector cannot ask for an erasure")
        _check(target)
        if target.kind is ErasureKind.TENANT:
            raise InvalidInput("a whole tenant is erased by the installation only: memvault tenant delete")
        return self._request(caller, scope, target, action)

    def remove_connector(self, caller: Caller, scope: Scope, name: str) -> Erasure:
        """Ask for the erasure of all that came through a connector, whose keys are revoked."""
        return self.request(caller, scope, Target(ErasureKind.CONNECTOR, name), action=Action.REMOVE_CONNECTOR)

    def request_for_installation(self, tenant_id: TenantId, target: Target) -> Erasure:
        """Ask for an erasure with the authority of the installation: the same as `request`, and whole tenants too."""
        caller = installation_caller(tenant_id)
        if target.kind is not ErasureKind.TENANT:
            _check(target)
        return self._request(caller, caller.scope, target, Action.REQUEST_ERASURE)

    def get(self, caller: Caller, scope: Scope, erasure_id: UUID) -> Erasure:
        """Return an erasure with how far it is, and its receipt once that is there.

        Raises:
            NotFound: when the tenant has no such erasure, or the principal is bound.
        """
        self._gate.check(caller, Action.GET_ERASURE, targets=[erasure_id])
        bound = caller.principal.users is not None or caller.principal.connector is not None
        with self._database.transaction(scope) as connection:
            found = None if bound else self._ledger.find(connection, scope, erasure_id)
            outcome = Outcome.DONE if found else Outcome.NOT_FOUND
            self._trail.write(connection, caller, AuditEvent.ERASURE_READ, targets=[erasure_id], outcome=outcome)
        if found is None:
            raise NotFound("there is no such erasure")
        return found

    def look(self, tenant_id: TenantId, erasure_id: UUID) -> Erasure:
        """Return an erasure with the authority of the installation, which waits for it."""
        scope = installation_caller(tenant_id).scope
        with self._database.transaction(scope) as connection:
            return self._ledger.get(connection, scope, erasure_id)

    def are_held(self, tombstone: Tombstone) -> bool:
        """Tell whether holds keep all that the database has left of what a tombstone says was erased."""
        scope = installation_caller(tombstone.tenant_id).scope
        with self._database.transaction(scope) as connection:
            return self._obstacles.keep(connection, scope, tombstone)

    def are_leaving(self, tombstone: Tombstone) -> bool:
        """Tell whether the database knows that what a tombstone says was erased is being removed at present."""
        scope = installation_caller(tombstone.tenant_id).scope
        with self._database.transaction(scope) as connection:
            if tombstone.kind is TombstoneKind.TENANT_REMOVED:
                return is_leaving(connection, tombstone.tenant_id)
            erased = tombstone.kind is TombstoneKind.SUBJECT_ERASED
            return erased and all(is_erasing(connection, one) for one in tombstone.ids)

    def list(self, caller: Caller, scope: Scope, *, page: int, size: int) -> Page[Erasure]:
        """Return one page of the tenant's erasures, the newest first; a bound principal sees none."""
        self._gate.check(caller, Action.LIST_ERASURES)
        bound = caller.principal.users is not None or caller.principal.connector is not None
        with self._database.transaction(scope) as connection:
            found, total = ([], 0) if bound else self._ledger.page(connection, scope, page=page, size=size)
            detail = ErasuresListed(page=page, total=total)
            ids = [one.id for one in found]
            self._trail.write(connection, caller, AuditEvent.ERASURES_LISTED, results=ids, detail=detail)
        return Page(found, total, page, size)

    def _request(self, caller: Caller, scope: Scope, target: Target, action: Action) -> Erasure:
        subject_id: UUID | None = None
        # A hold's refusal undoes the transaction and is recorded after it.
        with self._gate.recorded(caller, action), self._database.transaction(scope) as connection:
            erasure: Erasure | None = None
            if target.kind.subject is not None:
                subject_id = self._subjects.find_any(connection, scope, target.kind.subject, target.name)
                if subject_id is not None:
                    self._subjects.wait_for_erasers(connection, subject_id)
            if subject_id is not None or target.kind.subject is None:
                erasure = self._ledger.find_open(connection, scope, target, subject_id)
                if erasure is None:
                    erasure = self._new(connection, caller, scope, target, subject_id)
                elif erasure.status is ErasureStatus.SCHEDULED:
                    erasure = self.reconsider(connection, caller, scope, erasure)
                elif erasure.status is ErasureStatus.RUNNING and subject_id is not None:
                    # Its key is destroyed below: whatever of it a hold covers by now, its key stays as it is.
                    refuse_held_subject(connection, scope, subject_id)
            self._write(connection, caller, target, subject_id, erasure)
        if erasure is None:
            raise NotFound(f"there is no such {target.kind.value}")
        if erasure.status is ErasureStatus.RUNNING and subject_id is not None:
            # The job does it too: this is for whoever reads the answer as "cannot be read any more".
            kind = TombstoneKind.SUBJECT_ERASED
            once = tombstone_id(kind, scope.tenant_id, subject_id)
            self._tombstones.append(kind, scope.tenant_id, [subject_id], tombstone=once)
            self._keyring.destroy_subject(scope.tenant_id, subject_id)
        return erasure

    def _new(
        self, connection: Connection, caller: Caller, scope: Scope, target: Target, subject_id: UUID | None
    ) -> Erasure:
        due_at = self._obstacles.check(connection, scope, target, subject_id)
        erasure = self._ledger.add(
            connection,
            scope,
            target,
            subject_id=subject_id,
            principal_id=None if caller.principal.id == SERVICE_ID else caller.principal.id,
            due_at=due_at,
        )
        if due_at is None:
            self.begin(connection, scope, erasure)
        return erasure

    def reconsider(self, connection: Connection, caller: Caller, scope: Scope, erasure: Erasure) -> Erasure:
        """Begin an erasure that is scheduled when nothing keeps anything of it, else note until when; return it.

        Raises:
            LegalHold: when a legal hold covers something of it, which stays as it is.
        """
        if erasure.subject_id is not None:
            # The subject before its erasure, as requests come to them.
            self._subjects.wait_for_erasers(connection, erasure.subject_id)
        erasure = self._ledger.find(connection, scope, erasure.id, lock=True) or erasure
        if erasure.status is not ErasureStatus.SCHEDULED:
            return erasure
        target = Target(erasure.kind, erasure.connector or "")
        due_at = self._obstacles.check(connection, scope, target, erasure.subject_id)
        if due_at is None:
            self._ledger.begin(connection, scope, erasure.id)
            self.begin(connection, scope, erasure)
            self._trail.write(
                connection,
                caller,
                AuditEvent.ERASURE_BEGUN,
                subjects=[] if erasure.subject_id is None else [erasure.subject_id],
                targets=[erasure.id],
                detail=ErasureBegun(kind=Erased(erasure.kind.value)),
            )
        elif due_at == erasure.due_at:
            self._ledger.plan(connection, scope, erasure.id, due_at)
        else:
            self._ledger.postpone(connection, scope, erasure.id, due_at, blocked_by="minimum_retention")
        return self._ledger.get(connection, scope, erasure.id)

    def begin(self, connection: Connection, scope: Scope, erasure: Erasure) -> None:
        """Let nothing new be written for what is to be erased, and put its rows' removal into the queue."""
        if erasure.subject_id is not None:
            self._subjects.begin_erasing(connection, scope, erasure.subject_id)
            cancel_events(connection, [erasure.subject_id], code="erased", reason="its subject was erased meanwhile")
        elif erasure.kind is ErasureKind.TENANT:
            begin_deleting(connection, scope.tenant_id)
        self.defer(connection, scope, erasure.id)

    def defer(
        self,
        connection: Connection,
        scope: Scope,
        erasure_id: UUID,
        *,
        at: datetime | None = None,
        purging: bool = False,
    ) -> None:
        """Put what an erasure has to do next into the queue: one job an erasure at a time, one physical pass of all."""
        arguments = {"tenant_id": str(scope.tenant_id), "erasure_id": str(erasure_id)}
        lock = f"{ERASE}:purge" if purging else f"{ERASE}:{erasure_id}"
        self._queue.defer(connection, ERASE, arguments, lock=lock, at=at)

    def has_job(self, erasure_id: ColumnElement[UUID]) -> ColumnElement[bool]:
        """Return the condition that an erasure has a job."""
        return self._queue.has_job(ERASE, "erasure_id", erasure_id)

    def _write(
        self,
        connection: Connection,
        caller: Caller,
        target: Target,
        subject_id: UUID | None,
        erasure: Erasure | None,
    ) -> None:
        outcome = Outcome.NOT_FOUND if erasure is None else Outcome.DONE
        subjects = [] if subject_id is None else [subject_id]
        targets = [] if erasure is None else [erasure.id]
        due_at = None if erasure is None else erasure.due_at
        told: dict[str, Any] = {"subjects": subjects, "targets": targets, "outcome": outcome}
        if target.kind is ErasureKind.CONNECTOR:
            detail = ConnectorRemoved(due_at=due_at)
            self._trail.write(connection, caller, AuditEvent.CONNECTOR_REMOVED, detail=detail, **told)
        else:
            asked = ErasureRequested(kind=Erased(target.kind.value), due_at=due_at)
            self._trail.write(connection, caller, AuditEvent.ERASURE_REQUESTED, detail=asked, **told)


def _check(target: Target) -> None:
    if target.kind.subject is not None:
        check_names(SubjectNames(**{f"{target.kind.value}_id": target.name}))
        return
    check_characters(target.name, "connector")
    if not 1 <= len(target.name) <= _NAME_CHARS or not target.name.strip():
        raise InvalidInput(f"connector: must have 1 to {_NAME_CHARS} characters")
