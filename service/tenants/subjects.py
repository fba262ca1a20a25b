"""Subjects: from the ids that callers write to the surrogates that everything else refers to, and back."""

from __future__ import annotations

import hashlib
import hmac
import logging
import threading
import unicodedata
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID
from weakref import WeakKeyDictionary

from sqlalchemy import ColumnElement, Connection, RootTransaction, delete, event, exists, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert

from service import clock
from service.errors import Conflict, InvalidInput
from service.records import SubjectNames
from service.scope import Scope, SubjectKind, TenantId
from service.storage.encryption import Cipher, Place
from service.storage.keyring import KeyDestroyed, KeyLost, Keyring
from service.storage.stored import Slice
from service.tenants.tables import IdentityRow, SubjectRow

_log: Final = logging.getLogger("memvault.subjects")
_CACHED: Final = 50_000
_BELIEVED_SECONDS: Final = 5.0
_subjects: Final[Any] = SubjectRow.__table__  # type: ignore[attr-defined]
_identities: Final[Any] = IdentityRow.__table__  # type: ignore[attr-defined]
#: The condition that a subject's erasure was begun and has not ended.
_ERASING: Final = _subjects.c.erasing_at.is_not(None)

Name = tuple[SubjectKind, str]


@dataclass(frozen=True, slots=True)
class SubjectIds:
    """The surrogates of the subjects that a memory belongs to."""

    user_id: UUID | None = None
    agent_id: UUID | None = None
    app_id: UUID | None = None
    run_id: UUID | None = None

    @classmethod
    def of(cls, pairs: Iterable[tuple[SubjectKind, UUID]]) -> SubjectIds:
        """Return the surrogates of (kind, surrogate) pairs, one of a kind at most."""
        return cls(**{f"{kind.value}_id": surrogate for kind, surrogate in pairs})

    def all(self) -> list[UUID]:
        """Return the ids that are set, the owner of the encryption key first."""
        return [one for one in (self.user_id, self.agent_id, self.app_id, self.run_id) if one is not None]

    @property
    def owner(self) -> UUID:
        """The subject whose key encrypts: the user, else the agent, the app, the run."""
        return self.all()[0]


@dataclass(frozen=True, slots=True)
class Subject:
    """A subject with its name and the time that it was first seen."""

    id: UUID
    kind: SubjectKind
    name: str
    created_at: Any


def check_new_name(kind: SubjectKind, name: str) -> None:
    """Raise InvalidInput for a name that no subject may be given, since it cannot stand in a URL as it is.

    Clients put names into paths, where `.` and `..` mean something else and control characters get lost. What has such
    a name from before keeps it.
    """
    if name in (".", ".."):
        raise InvalidInput(f"{kind.value}_id: must not be '.' or '..', which have a meaning in URLs; take another id")
    if any(unicodedata.category(character) == "Cc" for character in name):
        raise InvalidInput(f"{kind.value}_id: must not hold line breaks, tabs or other control characters")


class Subjects:
    """Looks subjects up and makes them. Every method works inside the caller's transaction."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._lock = threading.Lock()
        # A name moves to another surrogate only after an erasure, which another process may have done: so what is
        # remembered is believed for some seconds only. A surrogate never gets another name, but loses its own.
        self._ids: OrderedDict[tuple[TenantId, Name], tuple[float, UUID]] = OrderedDict()
        self._names: OrderedDict[tuple[TenantId, UUID], tuple[float, Name]] = OrderedDict()
        # Made by transactions that may still roll back, so not to be remembered from within them.
        self._uncommitted: WeakKeyDictionary[RootTransaction, set[UUID]] = WeakKeyDictionary()
        # Surrogates are random and never used again, so a late reader cannot bring an erased one back to memory. The
        # oldest are let go: who still reads from before so many erasures would be believed for seconds.
        self._erased: OrderedDict[UUID, None] = OrderedDict()

    def known(self, scope: Scope, names: Iterable[Name]) -> dict[Name, UUID] | None:
        """Return the surrogates of all names from memory, or None when one of them must be looked up."""
        found: dict[Name, UUID] = {}
        with self._lock:
            for name in names:
                since, surrogate = self._ids.get((scope.tenant_id, name), (0.0, None))
                if surrogate is None or clock.monotonic() - since > _BELIEVED_SECONDS:
                    return None
                found[name] = surrogate
        return found

    def find(self, connection: Connection, scope: Scope, names: Iterable[Name]) -> dict[Name, UUID]:
        """Return the surrogates of those names that exist."""
        wanted = list(names)
        cached = self.known(scope, wanted)
        if cached is not None:
            return cached
        by_mac = {(kind.value, self.name_mac(scope, kind, name)): (kind, name) for kind, name in wanted}
        rows = connection.execute(
            select(_subjects.c.id, _subjects.c.kind, _subjects.c.name_mac).where(
                tuple_(_subjects.c.kind, _subjects.c.name_mac).in_(list(by_mac)), _subjects.c.erasing_at.is_(None)
            )
        )
        found = {by_mac[(row.kind, bytes(row.name_mac))]: row.id for row in rows}
        self._remember(connection, scope, found)
        return found

    def ensure(self, connection: Connection, scope: Scope, names: SubjectNames) -> SubjectIds:
        """Return the surrogates of the names, making the subjects (and their keys) that are new.

        The keys are made durable just before the transaction commits; one that is taken back leaves none.

        Raises:
            InvalidInput: for a new one whose name none may be given.
            Conflict: while one of them is being erased, and for a new user whose id is an account that is linked.
        """
        pairs = names.items()
        found = self.find(connection, scope, pairs)
        for kind, name in pairs:
            if (kind, name) not in found:
                found[(kind, name)] = self._create(connection, scope, kind, name)
        return SubjectIds.of((kind, found[(kind, name)]) for kind, name in pairs)

    def names(self, connection: Connection, scope: Scope, ids: Iterable[UUID]) -> dict[UUID, Name]:
        """Return the names of those surrogates whose key is there."""
        wanted = set(ids)
        named: dict[UUID, Name] = {}
        with self._lock:
            for surrogate in wanted:
                since, name = self._names.get((scope.tenant_id, surrogate), (0.0, None))
                if name is not None and clock.monotonic() - since <= _BELIEVED_SECONDS:
                    named[surrogate] = name
        missing = wanted - named.keys()
        if missing:
            rows = connection.execute(
                select(_subjects.c.id, _subjects.c.kind, _subjects.c.name).where(_subjects.c.id.in_(list(missing)))
            )
            for row in rows:
                if (name := self._open_name(scope, row.id, row.kind, row.name)) is not None:
                    named[row.id] = name
            fresh = {name: surrogate for surrogate, name in named.items() if surrogate in missing}
            self._remember(connection, scope, fresh)
        return named

    def list(
        self,
        connection: Connection,
        scope: Scope,
        *,
        ids: Sequence[UUID] | None = None,
        part: Slice | None = None,
    ) -> Sequence[Subject]:
        """Return all subjects of the tenant (or the given ones), or a part of them, the oldest first.

        One whose name cannot be opened is left out; a part is so much shorter then.
        """
        query = select(_subjects).where(*_living(ids)).order_by(_subjects.c.created_at, _subjects.c.id)
        if part is not None:
            query = query.offset(part.skip).limit(part.size)
        subjects = []
        for row in connection.execute(query):
            if (name := self._open_name(scope, row.id, row.kind, row.name)) is not None:
                subjects.append(Subject(id=row.id, kind=name[0], name=name[1], created_at=row.created_at))
        return subjects

    def count(self, connection: Connection, *, ids: Sequence[UUID] | None = None) -> int:
        """Return how many subjects the tenant has (or how many of the given ones there are)."""
        return int(connection.execute(select(func.count()).select_from(_subjects).where(*_living(ids))).scalar_one())

    def date_back(self, connection: Connection, subject_id: UUID, created_at: datetime) -> None:
        """Say that a subject was first seen at an earlier time, elsewhere; a later one changes nothing."""
        earlier = (_subjects.c.id == subject_id) & (_subjects.c.created_at > created_at)
        connection.execute(update(_subjects).where(earlier).values(created_at=created_at))

    def begin_erasing(self, connection: Connection, scope: Scope, subject_id: UUID) -> None:
        """Mark a subject so that nothing new can be written for it; waits for writes that are under way."""
        connection.execute(update(_subjects).where(_subjects.c.id == subject_id).values(erasing_at=func.now()))
        self.forget(scope, subject_id)

    def lock(self, connection: Connection, subject_ids: Iterable[UUID]) -> set[UUID]:
        """Keep the subjects from being erased until this transaction ends; return those that live."""
        rows = connection.execute(
            select(_subjects.c.id)
            .where(_subjects.c.id.in_(list(subject_ids)), _subjects.c.erasing_at.is_(None))
            .order_by(_subjects.c.id)
            .with_for_update(key_share=True, read=True)
        )
        return {row.id for row in rows}

    def wait_for_erasers(self, connection: Connection, subject_id: UUID) -> None:
        """Let one request to erase a subject follow the other; writes that refer to it go on."""
        locked = select(_subjects.c.id).where(_subjects.c.id == subject_id).with_for_update(key_share=True)
        connection.execute(locked)

    def wait_for_writers(self, connection: Connection, subject_id: UUID) -> None:
        """Lock a subject for removal: writes that refer to it end first, later ones find it gone."""
        connection.execute(select(_subjects.c.id).where(_subjects.c.id == subject_id).with_for_update())

    def find_any(self, connection: Connection, scope: Scope, kind: SubjectKind, name: str) -> UUID | None:
        """Return the surrogate of a name, that of one that is being erased too, or None."""
        query = select(_subjects.c.id).where(
            _subjects.c.kind == kind.value, _subjects.c.name_mac == self.name_mac(scope, kind, name)
        )
        return connection.execute(query).scalar()

    def erasing(self, connection: Connection) -> Sequence[UUID]:
        """Return the subjects whose erasure was begun and has not ended."""
        return list(connection.execute(select(_subjects.c.id).where(_ERASING)).scalars())

    def remove(self, connection: Connection, scope: Scope, subject_id: UUID) -> None:
        """Remove the subject's row with the accounts that stand for it; nothing else may refer to it any more."""
        connection.execute(delete(_identities).where(_identities.c.user_id == subject_id))
        connection.execute(delete(_subjects).where(_subjects.c.id == subject_id))
        self.forget(scope, subject_id)

    def forget(self, scope: Scope, subject_id: UUID) -> None:
        """Drop what this process remembers of a subject that is erased, for good."""
        with self._lock:
            self._erased[subject_id] = None
            while len(self._erased) > _CACHED:
                self._erased.popitem(last=False)
            _, name = self._names.pop((scope.tenant_id, subject_id), (0.0, None))
            if name is not None:
                self._ids.pop((scope.tenant_id, name), None)

    def forget_tenant(self, scope: Scope) -> None:
        """Drop what this process remembers of a tenant that is deleted."""
        with self._lock:
            for name in [one for one in self._ids if one[0] == scope.tenant_id]:
                del self._ids[name]
            for surrogate in [one for one in self._names if one[0] == scope.tenant_id]:
                del self._names[surrogate]

    def forget_names(self) -> None:
        """Drop what this process remembers of names, because one of them has turned out to be another subject's."""
        with self._lock:
            self._ids.clear()

    def lock_user_names(self, connection: Connection, scope: Scope, names: Iterable[str]) -> None:
        """Let nobody else make users of these names, or link accounts that read so, until this transaction ends."""
        macs = {self.name_mac(scope, SubjectKind.USER, name) for name in names}
        # In one order, so that two of them never wait for each other.
        for number in sorted(int.from_bytes(mac[:8], "big", signed=True) for mac in macs):
            connection.execute(select(func.pg_advisory_xact_lock(number)))

    def name_mac(self, scope: Scope, kind: SubjectKind, name: str) -> bytes:
        """Return the keyed digest by which a name is looked up."""
        secret = self._keyring.tenant_secret(scope.tenant_id, "subject-names")
        return hmac.digest(secret, f"{kind.value}\x00{name}".encode(), hashlib.sha256)

    def tenant_cipher(self, scope: Scope) -> Cipher:
        """Return the cipher for what belongs to the tenant itself and to none of its subjects."""
        return Cipher(self._keyring.tenant_secret(scope.tenant_id, "tenant-content"))

    def _create(self, connection: Connection, scope: Scope, kind: SubjectKind, name: str) -> UUID:
        check_new_name(kind, name)
        mac = self.name_mac(scope, kind, name)
        if kind is SubjectKind.USER:
            self.lock_user_names(connection, scope, [name])
            if connection.execute(select(_identities.c.id).where(_identities.c.name_mac == mac)).first():
                raise Conflict(
                    "user_id: this is an account that stands for a user; name it as identity, or name that user"
                )
        # Twice, since the one that has the name may be gone, erased, before it is looked at.
        for _ in range(2):
            if (made := self._insert(connection, scope, kind, name, mac)) is not None:
                return made
            row = connection.execute(
                select(_subjects.c.id, _subjects.c.erasing_at).where(
                    _subjects.c.kind == kind.value, _subjects.c.name_mac == mac
                )
            ).one_or_none()
            if row is not None and row.erasing_at is None:
                return UUID(str(row.id))
            if row is not None:
                break
        raise Conflict(f"the {kind.value} of this request is being erased; try again later")

    def _insert(self, connection: Connection, scope: Scope, kind: SubjectKind, name: str, mac: bytes) -> UUID | None:
        """Make a subject and return it, or None where there is one of this name."""
        surrogate, made = clock.new_random_id(), self._made_by(connection, scope)
        made.add(surrogate)
        cipher = self._keyring.new_subject(scope.tenant_id, surrogate)
        created = connection.execute(
            insert(_subjects)
            .values(
                tenant_id=scope.tenant_id,
                id=surrogate,
                kind=kind.value,
                name_mac=mac,
                name=cipher.seal(name.encode(), _name_place(scope.tenant_id, surrogate)),
                created_at=clock.now(),
            )
            .on_conflict_do_nothing(constraint="subjects_name")
            .returning(_subjects.c.id)
        ).scalar()
        if created is not None:
            return surrogate
        # The key that was made for nothing seals nothing.
        made.discard(surrogate)
        self._keyring.forget_new(scope.tenant_id, surrogate)
        return None

    def _made_by(self, connection: Connection, scope: Scope) -> set[UUID]:
        """Return the subjects that the transaction makes, to be added to."""
        transaction = connection.get_transaction()
        assert transaction is not None
        if (made := self._uncommitted.get(transaction)) is not None:
            return made
        made = self._uncommitted[transaction] = set()
        # Once a commit was tried nobody knows whether it was done: then its keys must be there.
        event.listen(connection, "commit", lambda _: self._keep_keys(scope, made))
        event.listen(connection, "rollback", lambda _: self._forget_keys(scope, made))
        return made

    def _keep_keys(self, scope: Scope, made: set[UUID]) -> None:
        try:
            for surrogate in made:
                self._keyring.create_subject(scope.tenant_id, surrogate)
        finally:
            self._forget_keys(scope, made)

    def _forget_keys(self, scope: Scope, made: set[UUID]) -> None:
        for surrogate in made:
            self._keyring.forget_new(scope.tenant_id, surrogate)
        made.clear()

    def _open_name(self, scope: Scope, surrogate: UUID, kind: str, sealed: bytes) -> Name | None:
        try:
            cipher = self._keyring.subject(scope.tenant_id, surrogate)
        except KeyDestroyed:
            return None
        except KeyLost:
            # One name that cannot be read any more hides nothing of the others.
            _log.error("the name of a subject cannot be opened: its key is lost", extra={"subject": str(surrogate)})
            return None
        return SubjectKind(kind), cipher.open(sealed, _name_place(scope.tenant_id, surrogate)).decode()

    def _remember(self, connection: Connection, scope: Scope, found: dict[Name, UUID]) -> None:
        transaction = connection.get_transaction()
        own = self._uncommitted.get(transaction, set()) if isinstance(transaction, RootTransaction) else set()
        with self._lock:
            for name, surrogate in found.items():
                if surrogate in own or surrogate in self._erased:
                    continue
                self._ids.pop((scope.tenant_id, name), None)
                self._ids[(scope.tenant_id, name)] = (clock.monotonic(), surrogate)
                self._names[(scope.tenant_id, surrogate)] = (clock.monotonic(), name)
            while len(self._ids) > _CACHED:
                self._ids.popitem(last=False)
            while len(self._names) > _CACHED:
                self._names.popitem(last=False)


def _living(ids: Sequence[UUID] | None) -> list[ColumnElement[bool]]:
    """Return the conditions that a subject is not being erased, and that it is one of these where they are given."""
    living = [_subjects.c.erasing_at.is_(None)]
    return living if ids is None else [*living, _subjects.c.id.in_(list(ids))]


def any_erasing() -> ColumnElement[bool]:
    """Return the condition that the tenant has a subject whose erasure was begun and has not ended."""
    return exists().where(_ERASING)


def is_erasing(connection: Connection, subject_id: UUID) -> bool:
    """Tell whether a subject's erasure was begun and has not ended."""
    query = select(_subjects.c.id).where(_subjects.c.id == subject_id, _ERASING)
    return connection.execute(query).first() is not None


def _name_place(tenant_id: TenantId, surrogate: UUID) -> Place:
    return Place(tenant_id, "subjects", surrogate, "name")
