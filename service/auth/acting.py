"""For whom a call is made: the user that a caller names, or the one user that its token is for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final
from urllib.parse import unquote_to_bytes

from service.auth.tokens import is_user_name
from service.errors import InvalidInput
from service.scope import Caller, Principal, PrincipalKind, Scope, SubjectKind
from service.storage.database import Database
from service.tenants.subjects import Subjects

#: The header that names the acting user.
HEADER: Final = "X-Acting-User"
_RULE: Final = f"{HEADER}: must be the id of one user, percent-encoded UTF-8 where it is not plain ASCII"


class ActingUsers:
    """Narrows callers to the user that they act for. It makes no user: whoever is not known yet has no surrogate."""

    def __init__(self, database: Database, subjects: Subjects) -> None:
        self._database = database
        self._subjects = subjects

    def asks(self, caller: Caller, named: str | None) -> bool:
        """Tell whether `narrowed` would ask the database about the user now."""
        name = acts_for(caller.principal, named)
        if name is None or not is_user_name(name):
            return False
        return self._subjects.known(Scope.of(caller.principal), [(SubjectKind.USER, name)]) is None

    def narrowed(self, caller: Caller, named: str | None) -> Caller:
        """Return the caller as it acts for the named user, if one is named; the gate refuses a user that is not its.

        A token for one user acts for that one without being told.

        Raises:
            InvalidInput: for a name that no user can have.
        """
        principal = caller.principal
        name = acts_for(principal, named)
        if name is None:
            return caller
        if not is_user_name(name):
            raise InvalidInput(_RULE)
        scope = Scope.of(principal)
        pair = (SubjectKind.USER, name)
        found = self._subjects.known(scope, [pair])
        if found is None:
            with self._database.transaction(scope) as connection:
                found = self._subjects.find(connection, scope, [pair])
        return replace(caller, principal=principal.acting_as(name, found.get(pair)))


def acts_for(principal: Principal, named: str | None) -> str | None:
    """Return the user that a call is for: the named one, else the only one of a token that is for one; or None."""
    if named is None and principal.kind is PrincipalKind.TOKEN and principal.users is not None:
        return next(iter(principal.users)) if len(principal.users) == 1 else None
    return named


def acting_user(values: Sequence[str]) -> str | None:
    """Return the user that the headers of a request name, or None.

    Raises:
        InvalidInput: when there are two, or one that cannot be read: neither may win by its place.
    """
    if not values:
        return None
    if len(values) > 1 or not values[0].isascii():
        raise InvalidInput(_RULE)
    try:
        return unquote_to_bytes(values[0]).decode()
    except UnicodeDecodeError:
        raise InvalidInput(_RULE) from None
