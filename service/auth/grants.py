"""What an API key may do, and whether one grant goes beyond another. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from service.audit.details import Reason
from service.errors import Forbidden, InvalidInput, MemvaultError
from service.policy.table import authorize
from service.scope import Action, Permission, Principal


@dataclass(frozen=True, slots=True)
class Grant:
    """What a new key may do. `users` None is all users of the tenant.

    `must_name_user` makes it the key of a system agent, which says for which user each of its calls is made.
    `owner` is the person whose key it is; the installation alone says it, a key that a key makes has its maker's.
    """

    permissions: frozenset[Permission]
    users: frozenset[str] | None = None
    connector: str | None = None
    expires_at: datetime | None = None
    label: str | None = None
    not_before: datetime | None = None
    must_name_user: bool = False
    owner: str | None = None


def check_grant(grant: Grant) -> None:
    """Raise InvalidInput for a grant that no key can have."""
    if grant.users is not None and not grant.users:
        raise InvalidInput("a key that is bound to users must name one at least")
    if grant.not_before is not None and grant.expires_at is not None and grant.not_before >= grant.expires_at:
        raise InvalidInput("not_before: must be before the key ends")


def find_wider(
    grant: Grant, principal: Principal, own_end: datetime | None, *, action: Action = Action.CREATE_KEY
) -> tuple[Reason, MemvaultError] | None:
    """Return in what a grant goes beyond the key that would make it, as a code and an error, or None."""
    if not authorize(principal, action):
        return Reason.PERMISSION, Forbidden("this key may not make keys any more")
    if not grant.permissions <= principal.permissions:
        return Reason.WIDER, Forbidden("a key cannot make a key with permissions that it lacks itself")
    if principal.users is not None and (grant.users is None or not grant.users <= principal.users):
        return Reason.USERS, Forbidden("a key that is bound to users can only make keys that are bound to some of them")
    if principal.must_name_user and not grant.must_name_user and (grant.users is None or len(grant.users) > 1):
        detail = "a system agent's key can only make keys of system agents, or bound to one user"
        return Reason.ACTING, Forbidden(detail)
    if principal.connector is not None and grant.connector != principal.connector:
        return Reason.CONNECTOR, Forbidden("a key that is bound to a connector can only make keys for that connector")
    if own_end is not None and (grant.expires_at is None or grant.expires_at > own_end):
        return Reason.EXPIRY, Forbidden("a key that expires cannot make one that lives longer")
    return None
