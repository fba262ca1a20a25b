"""Translates between the scopes of an issuer's tokens and our permissions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from service.errors import ConfigurationError
from service.policy.table import ROLES
from service.scope import Permission

_KNOWN: Final = {permission.value: frozenset({permission}) for permission in Permission} | ROLES
#: What may stand in a list of scopes (RFC 6749, 3.3); a group's name in another claim may be longer than one word.
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")


class ScopeNames:
    """What the issuer's scopes stand for. Without a map the scopes are the names of the permissions."""

    def __init__(self, scope_map: Mapping[str, Sequence[str]]) -> None:
        """Take the map.

        Raises:
            ConfigurationError: for a name in it that is neither a permission nor a role.
        """
        unknown = sorted({name for names in scope_map.values() for name in names} - _KNOWN.keys())
        if unknown:
            raise ConfigurationError(
                f"auth.oidc.scope_map: there is no permission or role {unknown[0]}; there are {', '.join(_KNOWN)}"
            )
        self._grants = {
            scope: frozenset(permission for name in names for permission in _KNOWN[name])
            for scope, names in (
                scope_map or {permission.value: [permission.value] for permission in Permission}
            ).items()
        }

    def permissions(self, scopes: Iterable[str]) -> frozenset[Permission]:
        """Return what these scopes grant together; one that is not known grants nothing."""
        return frozenset(permission for scope in scopes for permission in self._grants.get(scope, ()))

    def names(self, permissions: Iterable[Permission]) -> tuple[str, ...]:
        """Return the scopes that get one these permissions: for each the scope that grants least beside it."""
        wanted = frozenset(permissions)
        chosen: dict[str, None] = {}
        for permission in Permission:
            offers = [
                scope for scope, granted in self._grants.items() if permission in granted and _SCOPE.fullmatch(scope)
            ]
            if permission in wanted and offers:
                chosen[min(offers, key=lambda scope: (len(self._grants[scope]), scope))] = None
        return tuple(chosen)
