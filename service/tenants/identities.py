"""Connector accounts that stand for a user: linked, listed, unlinked, and resolved before a call is authorised.

An account is known by a keyed digest of connector and account and is sealed under its user's key. No account is also
the id of a user: a link is refused when such a user exists, and a user of that id is not made while the link exists, so
that no name ever means two people. Both take the same lock.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select
from sqlalchemy.exc import IntegrityError

from service import clock
from service.audit.connector_details import IdentitiesListed, IdentityLinked
from service.audit.details import MemoryAdded, Reason
from service.audit.events import AuditEvent, Outcome
from service.audit.trail import Trail
from service.errors import Conflict, Forbidden, InvalidInput, NotFound
from service.filters.ast import Any_, Node
from service.filters.build import and_, subjects_filter
from service.filters.values import check_characters
from service.policy.gate import Gate
from service.records import Identity, NewMemories, Page, SubjectNames
from service.scope import Action, Caller, Scope, SubjectKind
from service.storage.database import Database
from service.storage.encryption import Place
from service.storage.keyring import KeyDestroyed, Keyring
from service.tenants.subjects import Subjects
from service.tenants.tables import IdentityRow

_identities: Final[Any] = IdentityRow.__table__  # type: ignore[attr-defined]
_CHARS: Final = 255
#: A name that no user can have: what an account that nobody is linked to stands for.
_NOBODY: Final = "\x00"
BOTH_NAMED: Final = "identity: stands beside user_id; name the user by one of the two"


@dataclass(frozen=True, slots=True)
class Link:
    """An account and the user that it stands for."""

    id: UUID
    identity: Identity
    user_id: str
    created_at: datetime


class Identities:
    """The accounts of a tenant's users."""

    def __init__(self, database: Database, keyring: Keyring, subjects: Subjects, trail: Trail, gate: Gate) -> None:
        self._database = database
        self._keyring = keyring
        self._subjects = subjects
        self._trail = trail
        self._gate = gate

    def link(self, caller: Caller, scope: Scope, identity: Identity, user_id: str) -> Link:
        """Let an account stand for a user, who is made if new. Doing it again returns the link that is there.

        Raises:
            Forbidden: without `identity:manage`, or with a key that is bound to users.
            Conflict: when the account is the id of a user, or stands for somebody else.
        """
        self._check(caller, Action.LINK_IDENTITY)
        _check_shape(identity)
        for last in (False, True):
            try:
                linked = self._link(caller, scope, identity, user_id)
            except (IntegrityError, KeyDestroyed) as error:
                # The user was erased between looking it up and writing.
                self._subjects.forget_names()
                if last:
                    raise Conflict("the user is being erased; try again later") from error
            else:
                if isinstance(linked, Conflict):
                    raise linked
                return linked
        raise AssertionError("unreachable")

    def list(
        self,
        caller: Caller,
        scope: Scope,
        *,
        page: int,
        size: int,
        user_id: str | None = None,
        connector: str | None = None,
    ) -> Page[Link]:
        """Return one page of the links, the oldest first; of one user or connector where one is named."""
        self._check(caller, Action.LIST_IDENTITIES)
        if connector is not None:
            check_characters(connector, "connector")
        with self._database.transaction(scope) as connection:
            clauses: list[ColumnElement[bool]] = []
            user: UUID | None = None
            if connector is not None:
                clauses.append(_identities.c.connector == connector)
            if user_id is not None:
                name = (SubjectKind.USER, user_id)
                user = self._subjects.find(connection, scope, [name]).get(name)
                clauses.append(_identities.c.user_id == user)
            total = connection.execute(select(func.count()).select_from(_identities).where(*clauses)).scalar_one()
            query = select(_identities).where(*clauses).order_by(_identities.c.created_at, _identities.c.id)
            rows = connection.execute(query.offset((page - 1) * size).limit(size)).all()
            links = self._opened(connection, scope, rows)
            self._trail.write(
                connection,
                caller,
                AuditEvent.IDENTITIES_LISTED,
                subjects=[user] if user else (),
                results=[link.id for link in links],
                detail=IdentitiesListed(page=page, total=int(total)),
            )
        return Page(links, int(total), page, size)

    def unlink(self, caller: Caller, scope: Scope, identity_id: UUID) -> None:
        """Let an account stand for nobody any more; what was stored through it stays its user's.

        Raises:
            NotFound: when the tenant has no such link.
        """
        self._check(caller, Action.UNLINK_IDENTITY, targets=[identity_id])
        with self._database.transaction(scope) as connection:
            gone = delete(_identities).where(_identities.c.id == identity_id).returning(_identities.c.user_id)
            user = connection.execute(gone).scalar()
            self._trail.write(
                connection,
                caller,
                AuditEvent.IDENTITY_UNLINKED,
                subjects=[user] if user else (),
                targets=[identity_id],
                outcome=Outcome.DONE if user else Outcome.NOT_FOUND,
            )
        if user is None:
            raise NotFound("there is no such identity")

    def adding(self, caller: Caller, scope: Scope, new: NewMemories, identity: Identity | None) -> NewMemories:
        """Return an add with the user that its account stands for.

        Raises:
            InvalidInput: when a user is named as well.
            NotFound: when the account stands for nobody: an add does not make users of accounts.
        """
        if identity is None:
            return new
        self._gate.check(caller, Action.ADD)
        if new.subjects.user_id is not None:
            raise InvalidInput(BOTH_NAMED)
        return replace(new, subjects=replace(new.subjects, user_id=self.owner(caller, scope, identity)))

    def owner(self, caller: Caller, scope: Scope, identity: Identity) -> str:
        """Return the user for whom an add through this account is.

        Raises:
            Forbidden: when a principal that is bound to users names an account that is none of theirs.
            NotFound: when the account stands for nobody.
        """
        user_id = self._resolved(caller, scope, Action.ADD, identity)
        self._gate.check_user(caller, Action.ADD, SubjectNames(user_id=user_id or _NOBODY), writing=True)
        if user_id is None:
            with self._database.transaction(scope) as connection:
                nothing = MemoryAdded(added=0, known=0)
                self._trail.write(
                    connection, caller, AuditEvent.MEMORY_ADDED, outcome=Outcome.NOT_FOUND, detail=nothing
                )
            raise NotFound("identity: no user is linked to this account; link it with POST /v1/identities/")
        return user_id

    def reading(self, caller: Caller, scope: Scope, action: Action, where: Node, identity: Identity | None) -> Node:
        """Return a filter narrowed to the user that an account stands for; nothing meets it when there is none.

        Raises:
            Forbidden: when a principal that is bound to users names an account that is none of theirs.
        """
        if identity is None:
            return where
        user_id = self._resolved(caller, scope, action, identity)
        self._gate.check_user(caller, action, SubjectNames(user_id=user_id or _NOBODY), writing=False)
        return and_(where, Any_() if user_id is None else subjects_filter(SubjectNames(user_id=user_id)))

    def _resolved(self, caller: Caller, scope: Scope, action: Action, identity: Identity) -> str | None:
        self._gate.check(caller, action)
        _check_shape(identity)
        with self._database.transaction(scope) as connection:
            query = select(_identities.c.user_id).where(_identities.c.account_mac == self._mac(scope, identity))
            surrogate = connection.execute(query).scalar()
            names = {} if surrogate is None else self._subjects.names(connection, scope, [surrogate])
        return names[surrogate][1] if surrogate in names else None

    def _link(self, caller: Caller, scope: Scope, identity: Identity, user_id: str) -> Link | Conflict:
        """Link, or return why not; its audit row is written either way."""
        with self._database.transaction(scope) as connection:
            self._subjects.lock_user_names(connection, scope, [identity.account, user_id])
            mac = self._mac(scope, identity)
            row = connection.execute(select(_identities).where(_identities.c.account_mac == mac)).first()
            linked: Link | Conflict
            if row is None:
                linked = self._made(connection, caller, scope, identity, user_id)
            else:
                known = self._opened(connection, scope, [row])
                same = bool(known) and known[0].user_id == user_id
                linked = (
                    known[0] if same else Conflict("identity: this account stands for another user; unlink it first")
                )
            done = isinstance(linked, Link)
            self._trail.write(
                connection,
                caller,
                AuditEvent.IDENTITY_LINKED,
                subjects=self._subjects.find(connection, scope, [(SubjectKind.USER, user_id)]).values(),
                targets=[linked.id] if isinstance(linked, Link) else [],
                outcome=Outcome.DONE if done else Outcome.REFUSED,
                detail=IdentityLinked(known=row is not None),
            )
        return linked

    def _made(
        self, connection: Connection, caller: Caller, scope: Scope, identity: Identity, user_id: str
    ) -> Link | Conflict:
        subjects = self._subjects
        if identity.account == user_id or subjects.find_any(connection, scope, SubjectKind.USER, identity.account):
            return Conflict("identity: the account is the id of a user, whose memories it would hide; use that id")
        try:
            user = subjects.ensure(connection, scope, SubjectNames(user_id=user_id)).owner
        except Conflict as error:
            return error
        link = Link(clock.new_id(), identity, user_id, clock.now())
        account = self._keyring.subject(scope.tenant_id, user).seal(identity.account.encode(), _place(scope, link.id))
        connection.execute(
            insert(_identities).values(
                tenant_id=scope.tenant_id,
                id=link.id,
                connector=identity.connector,
                account_mac=self._mac(scope, identity),
                name_mac=subjects.name_mac(scope, SubjectKind.USER, identity.account),
                account=account,
                user_id=user,
                principal_id=caller.principal.id,
                created_at=link.created_at,
            )
        )
        return link

    def _opened(self, connection: Connection, scope: Scope, rows: Sequence[Any]) -> Sequence[Link]:
        names = self._subjects.names(connection, scope, {row.user_id for row in rows})
        links = []
        for row in rows:
            if row.user_id not in names:
                continue
            try:
                cipher = self._keyring.subject(scope.tenant_id, row.user_id)
            except KeyDestroyed:
                # Erased, with the row still to be removed.
                continue
            account = cipher.open(row.account, _place(scope, row.id)).decode()
            links.append(Link(row.id, Identity(row.connector, account), names[row.user_id][1], row.created_at))
        return links

    def _check(self, caller: Caller, action: Action, *, targets: Sequence[UUID] = ()) -> None:
        self._gate.check(caller, action, targets=targets)
        if caller.principal.users is not None:
            self._trail.refuse(caller, action, Reason.BOUND, targets=targets)
            raise Forbidden("this key is bound to users, and accounts are the whole tenant's: use a key that is not")

    def _mac(self, scope: Scope, identity: Identity) -> bytes:
        secret = self._keyring.tenant_secret(scope.tenant_id, "identity-accounts")
        return hmac.digest(secret, f"{identity.connector}\x00{identity.account}".encode(), hashlib.sha256)


def _check_shape(identity: Identity) -> None:
    for name, value in (("connector", identity.connector), ("account", identity.account)):
        check_characters(value, f"identity.{name}")
        if not value.strip() or len(value) > _CHARS:
            raise InvalidInput(f"identity.{name}: must be a string of 1 to {_CHARS} characters, not only of spaces")


def _place(scope: Scope, row_id: UUID) -> Place:
    return Place(scope.tenant_id, "identities", row_id, "account")
