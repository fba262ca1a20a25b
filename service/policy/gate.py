"""The gate: every action passes it before it looks at anything, and a refusal is in the trail before it is answered."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from uuid import UUID

from service.audit.details import Reason
from service.audit.trail import Trail
from service.errors import ActingUserRequired, Forbidden, InsufficientScope, LegalHold, MinimumRetention
from service.policy.table import NEEDS, authorize, names_its_user
from service.records import SubjectNames
from service.scope import Action, Caller, PrincipalKind


class Gate:
    """Decides, and records what it refuses."""

    def __init__(self, trail: Trail) -> None:
        self._trail = trail

    def check(self, caller: Caller, action: Action, *, targets: Iterable[UUID] = ()) -> None:
        """Return if the caller may take the action.

        Raises:
            Forbidden: otherwise, with the permission that is missing; the refusal is in the trail by then. For an
                access token it is an InsufficientScope. Also when the call is for a user that is not the caller's.
            ActingUserRequired: when a system agent does not say for which user it calls.
        """
        if authorize(caller.principal, action):
            self._check_acting(caller, action, targets)
            return
        self._trail.refuse(caller, action, Reason.PERMISSION, targets=targets)
        needed = NEEDS.get(action)
        if caller.principal.kind is PrincipalKind.TOKEN and needed is not None:
            detail = f"this access token may not do that: it lacks the permission {needed}"
            raise InsufficientScope(detail, missing=frozenset({needed}))
        raise Forbidden(f"this key may not do that: it lacks the permission {needed}")

    def _check_acting(self, caller: Caller, action: Action, targets: Iterable[UUID]) -> None:
        if names_its_user(caller.principal, action):
            return
        if caller.principal.acting is not None:
            self._trail.refuse(caller, action, Reason.USER, targets=targets)
            raise Forbidden("X-Acting-User: this credential is bound to users, and this is none of them")
        self._trail.refuse(caller, action, Reason.ACTING, targets=targets)
        raise ActingUserRequired(
            "this is a system agent's credential: say for which user each call is made, in the header X-Acting-User "
            "or, over MCP, in the argument user_id"
        )

    def check_user(self, caller: Caller, action: Action, names: SubjectNames, *, writing: bool) -> None:
        """Return if a principal that is bound to users names one of them (for a write) or none but them (for a read).

        Raises:
            Forbidden: when it names another user, or writes without naming any.
        """
        users = caller.principal.users
        if users is None or (names.user_id in users) or (names.user_id is None and not writing):
            return
        self._trail.refuse(caller, action, Reason.USER)
        if caller.principal.acting is not None:
            raise Forbidden("the call is made for one user: name that user, and no other, as user_id")
        raise Forbidden("this key is bound to a user: name that user, and no other, as user_id")

    @contextmanager
    def recorded(self, caller: Caller, action: Action, *, targets: Iterable[UUID] = ()) -> Iterator[None]:
        """Put what a hold or a minimum retention refuses in the block into the trail, once its transaction was undone.

        Goes around the transaction, not into it. Without `targets` the row names the memories that are held.
        """
        try:
            yield
        except LegalHold as error:
            named = list(targets) or error.memory_ids
            self._trail.refuse(caller, action, Reason.HOLD, targets=named, holds=error.hold_ids)
            raise
        except MinimumRetention as error:
            self._trail.refuse(caller, action, Reason.MINIMUM, targets=list(targets) or error.memory_ids)
            raise

    def check_unbound(self, caller: Caller, action: Action) -> None:
        """Return if the principal is not bound to users: what concerns the whole tenant is not for one that is.

        Raises:
            Forbidden: otherwise.
        """
        if caller.principal.users is None:
            return
        self._trail.refuse(caller, action, Reason.BOUND)
        raise Forbidden("this key is bound to users, and that is for keys of the whole tenant")
