"""Between the wire and the records of key administration, pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

from service import clock
from service.api.admin.schemas import KeyIn
from service.auth.keys import ApiKey, Grant, MintedKey
from service.errors import InvalidInput
from service.filters.times import read_time
from service.memories.limits import check_characters, check_names
from service.policy.table import ROLES
from service.records import SubjectNames
from service.scope import Permission

_TEXT_CHARS: Final = 255
_MOST_USERS: Final = 1000


def grant_of(body: KeyIn) -> Grant:
    """Return the grant that a body asks for.

    Raises:
        InvalidInput: naming the field that cannot be understood.
    """
    for name in ("connector", "label"):
        _check_text(getattr(body, name), name)
    return Grant(
        permissions=_permissions(body),
        users=_users(body.users),
        connector=body.connector,
        expires_at=_end(body),
        label=body.label,
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
        "expires_at": _time(grant.expires_at),
    }


def key_out(key: ApiKey) -> dict[str, Any]:
    """Return a key as it is listed."""
    return {
        "id": str(key.id),
        "prefix": key.prefix,
        "permissions": sorted(key.permissions),
        "bound_to_users": key.bound_to_users,
        "connector": key.connector,
        "created_at": key.created_at.isoformat(),
        "expires_at": _time(key.expires_at),
        "last_used_at": _time(key.last_used_at),
        "revoked_at": _time(key.revoked_at),
    }


def _permissions(body: KeyIn) -> frozenset[Permission]:
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
    end = read_time(body.expires_at)
    if not isinstance(end, datetime):
        raise InvalidInput("expires_at: must be an ISO 8601 moment, such as 2030-01-31T00:00:00Z")
    if end <= clock.now():
        raise InvalidInput("expires_at: is in the past")
    return end


def _check_text(text: str | None, where: str) -> None:
    if text is None:
        return
    check_characters(text, where)
    if not 1 <= len(text) <= _TEXT_CHARS:
        raise InvalidInput(f"{where}: must have 1 to {_TEXT_CHARS} characters")


def _time(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
