"""From an access token of the configured issuer to a Principal: signature, audience, life, tenant, user, scopes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final
from uuid import NAMESPACE_URL, UUID, uuid5

import jwt

from service.auth.people import subject_person
from service.auth.scopes import ScopeNames
from service.auth.signing_keys import SigningKeys, UnknownKey
from service.errors import InvalidToken
from service.scope import Permission, Principal, PrincipalKind
from service.settings import Settings
from service.tenants.actions import Tenant, Tenants

#: Three parts in base64url, the first of which begins with `{`: no API key looks like that.
_TOKEN: Final = re.compile(r"e[w-z0-9_-][\w-]+\.[\w-]+\.[\w-]*", re.ASCII)
#: What the header may call itself: an access token (RFC 9068) or, with many issuers, just a JWT. Never a logout token.
_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
_LONGEST_NAME: Final = 255
_MOST_USERS: Final = 100
_LAST_MOMENT: Final = int(datetime.max.replace(microsecond=0, tzinfo=UTC).timestamp())
_REFUSALS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (jwt.ExpiredSignatureError, "has expired: get a new one"),
    (jwt.ImmatureSignatureError, "is not valid yet: compare the clocks of the issuer and of this service"),
    (jwt.InvalidAudienceError, "is for another service: ask the issuer for one with this service as its resource"),
    (jwt.InvalidIssuerError, "is of an issuer that this service does not trust"),
)
_REQUIRED: Final = ("iss", "aud", "sub", "exp")


def looks_like_token(secret: str) -> bool:
    """Tell whether a secret has the form of a signed token, so that it cannot be an API key."""
    return _TOKEN.fullmatch(secret) is not None


class Tokens:
    """Checks access tokens. Each face has an audience of its own, so that a token for one does not open the other."""

    def __init__(self, settings: Settings, tenants: Tenants) -> None:
        """Take the settings, with an issuer in them.

        Raises:
            ConfigurationError: for a map of scopes or a file of certificates that cannot be used.
        """
        oidc = settings.auth.oidc
        self._settings = oidc
        self._issuer = oidc.issuer or ""
        self._audiences = {
            "mcp": oidc.audience or f"{settings.server.public_url}/mcp",
            "rest": oidc.rest_audience or str(settings.server.public_url),
        }
        self._tenants = tenants
        self._keys = SigningKeys(oidc)
        self.scopes = ScopeNames(oidc.scope_map)

    def start(self) -> None:
        """Begin to fetch the signing keys."""
        self._keys.start()

    def state(self) -> tuple[str, str | None]:
        """Return whether tokens can be checked, for `/readyz`."""
        return self._keys.state()

    def keys_since(self) -> float | None:
        """Return a mark of the present signing keys, by which a token that was checked is as good as it was then.

        None is no such mark: the token has to be checked anew.
        """
        return self._keys.since()

    def has_keys_since(self, since: float | None) -> bool:
        """Tell whether the signing keys are those of that mark, and need not be fetched again."""
        return since is not None and since == self.keys_since()

    def audience(self, face: str) -> str | None:
        """Return what tokens must be for at this face, or None when it takes no tokens."""
        return self._audiences.get(face)

    def principal(self, token: str, *, face: str) -> Principal:
        """Return whom a token stands for.

        Raises:
            InvalidToken: for every token that is not to be trusted here and now.
            Unavailable: when that cannot be told, because the issuer's keys could not be fetched.
        """
        claims = self._claims(token, self.audience(face))
        tenant = self._tenant(claims)
        users, is_system = self._users(claims)
        ends = int(claims["exp"])
        return Principal(
            tenant_id=tenant.id,
            id=self._id(claims["sub"]),
            permissions=self._permissions(claims),
            users=users,
            name="token",
            kind=PrincipalKind.TOKEN,
            expires_at=datetime.fromtimestamp(min(ends, _LAST_MOMENT), UTC),
            must_name_user=is_system,
            version=tenant.version,
            person=subject_person(self._issuer, claims["sub"]),
            limits=tenant.limits,
        )

    def _claims(self, token: str, audience: str | None) -> dict[str, Any]:
        if audience is None:
            raise InvalidToken("access tokens are not accepted here; use an API key")
        try:
            header = jwt.get_unverified_header(token)
            algorithm, kid = header.get("alg"), header.get("kid")
            if algorithm not in self._settings.algorithms:
                raise InvalidToken("the access token is signed in a way that auth.oidc.algorithms does not list")
            if str(header.get("typ", "JWT")).lower() not in _TYPES:
                raise InvalidToken("what was sent is a token of another kind, not an access token")
            if not isinstance(kid, str) or not 0 < len(kid) <= _LONGEST_NAME:
                raise InvalidToken("the access token does not say which key signed it")
            key = self._keys.get(kid, algorithm)
            # The algorithm is the key's own and one of our list; a key of one family verifies no other.
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=audience,
                issuer=self._issuer,
                leeway=self._settings.leeway,
                options={"require": list(_REQUIRED), "enforce_minimum_key_length": True},
            )
        except UnknownKey:
            raise InvalidToken("the access token is signed with a key that its issuer does not have") from None
        except jwt.PyJWTError as error:
            reason = next((told for kind, told in _REFUSALS if isinstance(error, kind)), "is not valid")
            raise InvalidToken(f"the access token {reason}") from None
        if "cnf" in claims:
            raise InvalidToken(
                "the access token is bound to a key of its client, which is not supported: use a bearer token"
            )
        if not is_user_name(claims["sub"]):
            raise InvalidToken("the access token has no usable subject")
        return claims

    def _tenant(self, claims: Mapping[str, Any]) -> Tenant:
        value = _claim(claims, self._settings.tenant_claim)
        if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_NAME or not value.isprintable():
            raise InvalidToken("the access token names no tenant (auth.oidc.tenant_claim)")
        tenant = self._tenants.find(value)
        # A name may look like an id; what looks like one is one, so that no name can stand for another tenant's id.
        with suppress(ValueError):
            if tenant is not None and tenant.id != UUID(value):
                tenant = None
        if tenant is None or tenant.status != "active":
            raise InvalidToken("the access token names a tenant that is not known here or not active")
        return tenant

    def _users(self, claims: Mapping[str, Any]) -> tuple[frozenset[str] | None, bool]:
        """Return the users that the token is bound to, None only where the settings say so, and whether it is a system
        agent's, which has to name the user of each call.
        """
        settings = self._settings
        is_system = settings.system_claim is not None and _claim(claims, settings.system_claim) is True
        if is_system or not settings.bind_users:
            return None, is_system
        value = _claim(claims, settings.user_claim)
        names = value if isinstance(value, list) else [value]
        if not 0 < len(names) <= _MOST_USERS or not all(is_user_name(name) for name in names):
            raise InvalidToken("the access token names no user (auth.oidc.user_claim)")
        return frozenset(names), False

    def _permissions(self, claims: Mapping[str, Any]) -> frozenset[Permission]:
        value = _claim(claims, self._settings.scope_claim)
        scopes: Iterable[Any] = value.split() if isinstance(value, str) else value if isinstance(value, list) else ()
        return self.scopes.permissions(scope for scope in scopes if isinstance(scope, str))

    def _id(self, subject: str) -> UUID:
        """Return the same id for the same subject of the same issuer, always; no issuer's URL holds a line feed."""
        return uuid5(NAMESPACE_URL, f"{self._issuer}\n{subject}")


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    """Return a claim by its whole name or, where there is none, by its path through objects; else None."""
    if name in claims:
        return claims[name]
    value: Any = claims
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def is_user_name(value: Any) -> bool:
    """Tell whether a user can have this name: the same bounds as for `user_id`."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= _LONGEST_NAME
        and bool(value.strip())
        and value != "*"
        and "\x00" not in value
        and not any("\ud800" <= character <= "\udfff" for character in value)
    )
