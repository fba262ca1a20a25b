"""From the secret of a request to a Principal: "nobody" unless it is shown to be somebody."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from service import clock
from service.audit.trail import Trail
from service.auth.keys import Keys, key_hash
from service.auth.tokens import Tokens, looks_like_token
from service.auth.watch import CredentialWatch
from service.errors import InvalidToken, RecordUnavailable, Unauthenticated
from service.observability.metrics import CREDENTIALS_REFUSED
from service.scope import Permission, Principal, PrincipalKind
from service.settings import MOST_KEY

_CACHED: Final = 10_000
_LONGEST_TOKEN: Final = 16 * 1024
#: Refused credentials are counted and written to the trail once in this many seconds, so that guessing cannot fill it.
_REFUSALS_EVERY: Final = 10.0
#: A credential that is confirmed again and again is still read anew after this long: its last use is noted then.
_READ_EVERY: Final = 60.0
_REFUSED = "the API key is missing or not valid; send it as 'Authorization: Token <key>'"


@dataclass(frozen=True, slots=True)
class _Checked:
    """A secret that was found good: when, whose it is, and of a token by which signing keys."""

    at: float
    principal: Principal
    keys_since: float | None = None


@dataclass(slots=True)
class _Refused:
    """Refusals since the last row, and who was refused last."""

    count: int = 0
    told_at: float = float("-inf")
    request_id: str = ""
    client: str = ""
    face: str = ""


class Authenticator:
    """Checks secrets, and trusts what it checked for a few seconds, so that the steady state needs no database.

    Where a watch says that nothing has changed about the tenant's credentials, it goes on to trust it, an access token
    as long as the issuer's signing keys are those that it was checked by. A secret is an API key or, where an issuer is
    configured (`tokens`), an access token.
    """

    def __init__(
        self,
        keys: Keys,
        trail: Trail,
        *,
        cache_seconds: float,
        tokens: Tokens | None = None,
        watch: CredentialWatch | None = None,
        tokenless: str = "auth.oidc.issuer is not set",
    ) -> None:
        """`tokenless` says why there are no `tokens`."""
        self._keys = keys
        self._trail = trail
        self._cache_seconds = cache_seconds
        self._tokens = tokens
        self._watch = watch
        self._tokenless = tokenless
        self._lock = threading.Lock()
        self._telling = threading.Lock()
        self._cache: OrderedDict[bytes, _Checked] = OrderedDict()
        self._refused = _Refused()

    def authenticate(self, secret: str | None, *, request_id: str, client: str, face: str) -> Principal:
        """Return the principal of a secret.

        Raises:
            Unauthenticated: for no secret, an unknown, expired or revoked one, or one of a tenant that is not active;
                for an access token as InvalidToken.
            Unavailable: for an access token that cannot be checked, because its issuer does not answer.
        """
        try:
            if not secret:
                raise Unauthenticated(_REFUSED)
            if self._tokens is not None and looks_like_token(secret):
                return self._of_token(self._tokens, secret, face)
            return self._of_key(secret)
        except Unauthenticated:
            CREDENTIALS_REFUSED.labels(face).inc()
            with self._lock:
                self._refused.count += 1
                self._refused.request_id, self._refused.client, self._refused.face = request_id, client, face
            self.flush()
            raise

    def known(self, secret: str | None, *, face: str) -> Principal | None:
        """Return the principal of a secret that is trusted without asking anybody; on others `authenticate` decides."""
        if not secret or len(secret) > _LONGEST_TOKEN:
            return None
        is_token = self._tokens is not None and looks_like_token(secret)
        return self._find_checked(_token_hash(secret, face) if is_token else key_hash(secret))

    def flush(self, *, at_once: bool = False) -> None:
        """Write down what was refused since the last row, if that one is old enough or at once.

        Raises:
            RecordUnavailable: when the trail cannot be written; what was refused stays counted.
        """
        refused = self._refused
        # One at a time: who is refused while a row is being written is answered when it is.
        with self._telling:
            with self._lock:
                moment = clock.monotonic()
                if not refused.count or (moment - refused.told_at < _REFUSALS_EVERY and not at_once):
                    return
                count, last = refused.count, (refused.request_id, refused.client, refused.face)
                refused.count = 0
            request_id, client, face = last
            try:
                self._trail.credential_refused(
                    request_id=request_id, client=client, face=face, count=count, code="unauthenticated"
                )
            except RecordUnavailable:
                # Not in the trail, so not answered either; the next refusal tries again with all that were counted.
                with self._lock:
                    refused.count += count
                raise
            with self._lock:
                refused.told_at = moment

    def scopes(self, permissions: Iterable[Permission]) -> tuple[str, ...]:
        """Return the scopes to ask the issuer for to get these permissions; none where there is no issuer."""
        return () if self._tokens is None else self._tokens.scopes.names(permissions)

    def token_state(self) -> tuple[str, str | None]:
        """Return whether access tokens can be checked, for `/readyz`."""
        return ("off", self._tokenless) if self._tokens is None else self._tokens.state()

    def _of_key(self, secret: str) -> Principal:
        if len(secret) > MOST_KEY:
            raise Unauthenticated(_REFUSED)
        hashed = key_hash(secret)
        known = self._find_checked(hashed)
        if known is not None:
            return known
        checked_at = clock.monotonic()
        principal = self._keys.find_principal(secret)
        self._remember(hashed, None if principal is None else _Checked(checked_at, principal))
        if principal is None:
            raise Unauthenticated(_REFUSED)
        return principal

    def _of_token(self, tokens: Tokens, secret: str, face: str) -> Principal:
        if len(secret) > _LONGEST_TOKEN:
            raise InvalidToken(f"the access token has more than {_LONGEST_TOKEN} characters")
        hashed = _token_hash(secret, face)
        known = self._find_checked(hashed)
        if known is not None:
            return known
        checked_at, keys_since = clock.monotonic(), tokens.keys_since()
        principal = tokens.principal(secret, face=face)
        self._remember(hashed, _Checked(checked_at, principal, keys_since))
        return principal

    def _find_checked(self, hashed: bytes) -> Principal | None:
        with self._lock:
            known = self._cache.get(hashed)
        if known is None or not self._is_trusted(known):
            return None
        ends = known.principal.expires_at
        return known.principal if ends is None or clock.now() < ends else None

    def _is_trusted(self, known: _Checked) -> bool:
        age = clock.monotonic() - known.at
        if age < self._cache_seconds:
            # Asked even so: the watch then has its answer by the time that it is needed.
            if self._watch is not None:
                self._watch.confirms(known.principal)
            return True
        if self._watch is None or age >= _READ_EVERY or not self._watch.confirms(known.principal):
            return False
        if known.principal.kind is not PrincipalKind.TOKEN:
            return True
        # The watch hears nothing of the issuer's keys.
        return self._tokens is not None and self._tokens.has_keys_since(known.keys_since)

    def _remember(self, hashed: bytes, checked: _Checked | None) -> None:
        with self._lock:
            self._cache.pop(hashed, None)
            if checked is not None:
                self._cache[hashed] = checked
                while len(self._cache) > _CACHED:
                    self._cache.popitem(last=False)


def _token_hash(secret: str, face: str) -> bytes:
    """Return what a token is remembered by: one that was found good for one face is checked anew for another."""
    return key_hash(f"{face}\n{secret}")
