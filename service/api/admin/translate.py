"""Between the wire and the records of key administration, pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from service import clock
from service.api.admin.schemas import ChangeIn, KeyIn, RotateIn
from service.auth.keys import ApiKey, Grant, MintedKey
from service.auth.rotation import DEFAULT_OVERLAP, RotatedKey, Rotation
from service.errors import InvalidInput
from service.filters.times import read_time
from service.memories.limits import check_characters, check_names
from service.policy.table import ROLES
from service.records import SubjectNames
from service.scope import Permission

_TEXT_CHARS: Final = 255
_MOST_USERS: Final = 1000
#: What a body says of the key of a system agent.
_ACTING: Final = "required"


def grant_of(body: KeyIn) -> Grant:
    """Return the grant that a body asks for.

    Raises:
        InvalidInput: naming the field that cannot be understood.
    """
    for name in ("connector", "label"):
        _check_text(getattr(body, name), name)
    if body.acting not in (None, _ACTING):
        raise InvalidInput(f"acting: is {_ACTING}, or left out")
    return Grant(
        permissions=permissions_of(body),
        users=_users(body.users),
        connector=body.connector,
        expires_at=_end(body),
        label=body.label,
        not_before=None if body.not_before is None else _moment(body.not_before, "not_before"),
        must_name_user=body.acting is not None,
    )


def rotation_of(body: RotateIn) -> Rotation:
    """Return how a key is to be rotated."""
    return Rotation(
        DEFAULT_OVERLAP if body.overlap is None else timedelta(seconds=body.overlap),
        None if body.expires_in is None else clock.now() + timedelta(days=body.expires_in),
    )


def created_out(minted: MintedKey, grant: Grant) -> dict[str, Any]:
    """Return a new key with its secret."""
    return {
        "id": str(minted.id),
        "api_key": minted.secret,
        "tenant_id": str(minted.tenant_id),
        "permissions": sorted(grant.permissions),
        "users": None if grant.users is None else sorted(grant.users),
        "connector": grant.connector,
        "not_before": _time(grant.not_before),
        "expires_at": _time(grant.expires_at),
        "acting": _ACTING if grant.must_name_user else None,
    }


def rotated_out(old: UUID, rotated: RotatedKey) -> dict[str, Any]:
    """Return the successor of a key with its secret."""
    more = {"replaces": str(old), "old_expires_at": rotated.old_ends_at.isoformat()}
    return created_out(rotated.minted, rotated.grant) | more


def key_out(key: ApiKey) -> dict[str, Any]:
    """Return a key as it is listed."""
    return {
        "id": str(key.id),
        "prefix": key.prefix,
        "permissions": sorted(key.permissions),
        "bound_to_users": key.bound_to_users,
        "connector": key.connector,
        "created_at": key.created_at.isoformat(),
        "not_before": _time(key.not_before),
        "expires_at": _time(key.expires_at),
        "last_used_at": _time(key.last_used_at),
        "revoked_at": _time(key.revoked_at),
        "acting": _ACTING if key.must_name_user else None,
        "replaced_by": None if key.replaced_by is None else str(key.replaced_by),
        "owner": key.owner,
        "label": key.label,
    }


def permissions_of(body: KeyIn | ChangeIn) -> frozenset[Permission]:
    """Return the permissions that a body names, one by one or by a role.

    Raises:
        InvalidInput: for both, neither, or a name that there is not.
    """
    if (body.role is None) == (body.permissions is None):
        raise InvalidInput("give either role or permissions")
    if body.role is not None:
        if body.role not in ROLES:
            raise InvalidInput(f"role: must be one of {', '.join(ROLES)}")
        return ROLES[body.role]
    wanted = body.permissions or []
    if not wanted or not set(wanted) <= set(Permission):
        raise InvalidInput(f"permissions: one or more of {', '.join(Permission)}")
    return frozenset(Permission(one) for one in wanted)


def _users(users: list[str] | None) -> frozenset[str] | None:
    if users is None:
        return None
    if not 1 <= len(users) <= _MOST_USERS:
        raise InvalidInput(f"users: name 1 to {_MOST_USERS}, or leave it out for all users of the tenant")
    for user in users:
        check_names(SubjectNames(user_id=user))
    return frozenset(users)


def _end(body: KeyIn) -> datetime | None:
    if body.expires_in is not None and body.expires_at is not None:
        raise InvalidInput("give either expires_in or expires_at")
    if body.expires_in is not None:
        return clock.now() + timedelta(days=body.expires_in)
    if body.expires_at is None:
        return None
    end = _moment(body.expires_at, "expires_at")
    if end <= clock.now():
        raise InvalidInput("expires_at: is in the past")
    return end


def _moment(text: str, where: str) -> datetime:
    moment = read_time(text)
    if not isinstance(moment, datetime):
        raise InvalidInput(f"{where}: must be an ISO 8601 moment, such as 2030-01-31T00:00:00Z")
    return moment


def _check_text(text: str | None, where: str) -> None:
    if text is None:
        return
    check_characters(text, where)
    if not 1 <= len(text) <= _TEXT_CHARS:
        raise InvalidInput(f"{where}: must have 1 to {_TEXT_CHARS} characters")


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
