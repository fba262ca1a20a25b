"""From the secret of a request to a Principal: "nobody" unless it is shown to be somebody."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

from service import clock
from service.audit.trail import Trail
from service.auth.keys import Keys, key_hash
from service.errors import RecordUnavailable, Unauthenticated
from service.scope import Principal

_CACHED: Final = 10_000
_LONGEST_SECRET: Final = 512
#: Refused credentials are counted and written to the trail once in this many seconds, so that guessing cannot fill it.
_REFUSALS_EVERY: Final = 10.0
_REFUSED = "the API key is missing or not valid; send it as 'Authorization: Token <key>'"


class Authenticator:
    """Checks secrets, and trusts what it checked for a few seconds, so that the steady state needs no database."""

    def __init__(self, keys: Keys, trail: Trail, *, cache_seconds: float) -> None:
        self._keys = keys
        self._trail = trail
        self._cache_seconds = cache_seconds
        self._lock = threading.Lock()
        self._cache: OrderedDict[bytes, tuple[float, Principal]] = OrderedDict()
        self._refused = 0
        self._reported = -_REFUSALS_EVERY

    def authenticate(self, secret: str | None, *, request_id: str, client: str, face: str) -> Principal:
        """Return the principal of a secret.

        Raises:
            Unauthenticated: for no secret, an unknown, expired or revoked one, or one of a tenant that is not active.
        """
        if not secret or len(secret) > _LONGEST_SECRET:
            self._report(request_id, client, face)
            raise Unauthenticated(_REFUSED)
        hashed = key_hash(secret)
        with self._lock:
            known = self._cache.get(hashed)
        if known is not None and clock.monotonic() - known[0] < self._cache_seconds:
            return known[1]
        checked_at = clock.monotonic()
        principal = self._keys.find_principal(secret)
        with self._lock:
            self._cache.pop(hashed, None)
            if principal is not None:
                self._cache[hashed] = (checked_at, principal)
                while len(self._cache) > _CACHED:
                    self._cache.popitem(last=False)
        if principal is None:
            self._report(request_id, client, face)
            raise Unauthenticated(_REFUSED)
        return principal

    def _report(self, request_id: str, client: str, face: str) -> None:
        with self._lock:
            self._refused += 1
            if clock.monotonic() - self._reported < _REFUSALS_EVERY:
                return
            count, self._refused = self._refused, 0
        try:
            self._trail.credential_refused(
                request_id=request_id, client=client, face=face, count=count, code="unauthenticated"
            )
        except RecordUnavailable:
            # Not in the trail, so not answered either; the next refusal tries again with all that were counted.
            with self._lock:
                self._refused += count
            raise
        with self._lock:
            self._reported = clock.monotonic()
