"""The people behind credentials, so that what needs two of them can tell one from another.

A person is the subject of an access token, or the owner that a key was made with (`memvault key create --owner`). A key
that a key or a token makes has its maker's owner: whoever can hand out keys does not become two people by that. An
owner that is written as the issuer writes its subject is the same person as that subject.
"""

from __future__ import annotations

import hashlib
import hmac
import unicodedata
from dataclasses import dataclass
from typing import Final
from uuid import NAMESPACE_URL, UUID, uuid5

from sqlalchemy import Connection, func, select

from service.scope import Principal, PrincipalKind, TenantId
from service.storage.keyring import Keyring

_PURPOSE: Final = "people"


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a key is: the person, and the name where it is known."""

    person_id: UUID | None = None
    name: str | None = None


def subject_person(issuer: str, subject: str) -> UUID:
    """Return the id of a subject as a person; how its letters are written makes no other person of it."""
    name = unicodedata.normalize("NFC", subject.strip()).casefold()
    return uuid5(NAMESPACE_URL, f"{issuer}\nperson\n{name}")


def kept_person(keyring: Keyring, tenant_id: TenantId, person: UUID) -> UUID:
    """Return the id by which a tenant's rows know a person: under the tenant's key, since names can be guessed."""
    secret = keyring.tenant_secret(tenant_id, _PURPOSE)
    return UUID(bytes=hmac.digest(secret, person.bytes, hashlib.sha256)[:16])


def find_person(keyring: Keyring, principal: Principal) -> UUID | None:
    """Return the person behind a principal, as the tenant's rows know it, or None when nobody knows."""
    if principal.person is None or principal.kind is PrincipalKind.KEY:
        return principal.person
    return kept_person(keyring, principal.tenant_id, principal.person)


def are_related(connection: Connection, tenant_id: TenantId, one: UUID, other: UUID) -> bool:
    """Tell whether two credentials are the same or one of them made the other, at first or at second hand."""
    for maker, made in ((one, other), (other, one)):
        lineage = connection.execute(select(func.key_lineage(tenant_id, made))).scalar_one()
        if maker in lineage:
            return True
    return False
