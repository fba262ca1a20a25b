"""The issuer's signing keys: fetched, kept, renewed in the background, and asked for again when a new one appears."""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import jwt
import orjson

from service import clock
from service.errors import ConfigurationError, Unavailable
from service.settings import Oidc, secure_url

_log: Final = logging.getLogger("memvault.auth")

_Keys = Mapping[tuple[str, str], jwt.PyJWK]
_MOST_BYTES: Final = 256 * 1024
_MOST_KEYS: Final = 100
#: Requests that may wait for keys that are being fetched: an issuer that hangs must not take all threads.
_MOST_WAITING: Final = 4
_PRIVATE: Final = frozenset({"d", "k", "p", "q"})


class UnknownKey(Exception):
    """The issuer has no such key: its present keys were looked at."""


class _NotFetched(Exception):
    """Why the keys could not be fetched; fit for the eyes of whoever asks for readiness."""


class SigningKeys:
    """The public keys of one issuer.

    A known key is answered from memory, without a request, until it is `keys_fresh` old. Keys are fetched again in the
    background from half of that on, and at once for an id that is not among them or when nobody asked for so long, but
    never more often than every `refetch_wait`. While the issuer does not answer, known keys go on until they are
    `keys_stale` old.
    """

    def __init__(self, settings: Oidc) -> None:
        """Take the settings.

        Raises:
            ConfigurationError: when the file of certificates cannot be used.
        """
        self._settings = settings
        self._verify = _certificates(settings)
        self._changed = threading.Condition()
        self._keys: _Keys = {}
        self._fetched: float | None = None
        self._tried: float | None = None
        self._problem: str | None = None
        self._fetching = False
        self._waiting = 0

    def start(self) -> None:
        """Fetch the keys in the background, so that the first token finds them."""
        self._refresh(background=True)

    def get(self, kid: str, algorithm: str) -> jwt.PyJWK:
        """Return the key with this id for this algorithm.

        Raises:
            UnknownKey: when the issuer has none.
            Unavailable: when that cannot be told because its keys could not be fetched.
        """
        key, age, failing, _ = self._look(kid, algorithm)
        if key is not None and self._may_go_on(age, failing):
            self._renew(age)
            return key
        # Not known, or nobody asked for so long that a withdrawn key could still be here.
        self._refresh(background=False)
        key, age, failing, fetching = self._look(kid, algorithm)
        if age <= self._settings.keys_stale:
            if key is not None:
                return key
            if not failing and not fetching:
                raise UnknownKey
        retry_after = max(1, round(self._settings.refetch_wait))
        raise Unavailable("the issuer's signing keys cannot be fetched now; try again", retry_after=retry_after)

    def since(self) -> float | None:
        """Return when the present keys were fetched; None where a token has to be checked anew, and by newer ones."""
        with self._changed:
            fetched, failing = self._fetched, self._problem is not None
        if fetched is None:
            return None
        age = clock.monotonic() - fetched
        self._renew(age)
        return fetched if self._may_go_on(age, failing) else None

    def state(self) -> tuple[str, str | None]:
        """Return `ok`, `starting`, or `failed` with the reason."""
        with self._changed:
            if self._problem is not None:
                return "failed", f"auth.oidc: {self._problem}"
            return ("starting", "the signing keys are being fetched") if self._fetched is None else ("ok", None)

    def _may_go_on(self, age: float, failing: bool) -> bool:
        return age <= self._settings.keys_fresh or (failing and age <= self._settings.keys_stale)

    def _renew(self, age: float) -> None:
        """Fetch keys before they are too old, so that nobody has to wait for it."""
        if age > self._settings.keys_fresh / 2:
            self._refresh(background=True)

    def _look(self, kid: str, algorithm: str) -> tuple[jwt.PyJWK | None, float, bool, bool]:
        """Return the key if it is known, the age of what is known, and whether fetching fails or is under way."""
        with self._changed:
            age = float("inf") if self._fetched is None else clock.monotonic() - self._fetched
            return self._keys.get((kid, algorithm)), age, self._problem is not None, self._fetching

    def _refresh(self, *, background: bool) -> None:
        with self._changed:
            if self._fetching:
                if not background and self._waiting < _MOST_WAITING:
                    self._waiting += 1
                    self._changed.wait_for(lambda: not self._fetching, timeout=3 * self._settings.timeout)
                    self._waiting -= 1
                return
            if self._tried is not None and clock.monotonic() - self._tried < self._settings.refetch_wait:
                return
            self._fetching = True
        if not background:
            self._fetch()
            return
        try:
            threading.Thread(target=self._fetch, name="memvault-signing-keys", daemon=True).start()
        except RuntimeError:
            # No thread is to be had now. What is known is good yet, and whoever asks next tries again.
            with self._changed:
                self._fetching = False
                self._changed.notify_all()

    def _fetch(self) -> None:
        keys: _Keys | None = None
        problem: str | None = "the signing keys could not be read"
        try:
            keys = self._download()
            problem = None
        except _NotFetched as error:
            problem = str(error)
        except httpx.HTTPError as error:
            problem = f"the issuer does not answer ({type(error).__name__})"
        except Exception as error:
            _log.error("the signing keys could not be read", extra={"error": type(error).__name__})
        finally:
            with self._changed:
                if keys is not None:
                    self._keys, self._fetched = keys, clock.monotonic()
                if problem is not None and self._problem is None:
                    _log.warning("the signing keys of access tokens cannot be fetched", extra={"error": problem})
                self._problem = problem
                self._tried = clock.monotonic()
                self._fetching = False
                self._changed.notify_all()

    def _download(self) -> _Keys:
        # Its own client without the environment: no proxy and no .netrc may come between us and the issuer.
        with httpx.Client(
            timeout=self._settings.timeout, follow_redirects=False, trust_env=False, verify=self._verify
        ) as client:
            url = self._settings.jwks_url or self._discovered(client)
            document = self._read(client, url)
        if document is None:
            raise _NotFetched("the URL of the signing keys answers 404")
        keys = _usable(document.get("keys"), self._settings.algorithms)
        if not keys:
            raise _NotFetched("the issuer has no signing key for an algorithm of auth.oidc.algorithms")
        return keys

    def _discovered(self, client: httpx.Client) -> str:
        issuer = self._settings.issuer or ""
        parts = urlsplit(issuer)
        path = parts.path.rstrip("/")
        for url in (
            f"{issuer.rstrip('/')}/.well-known/openid-configuration",
            f"{parts.scheme}://{parts.netloc}/.well-known/oauth-authorization-server{path}",
        ):
            document = self._read(client, url)
            if document is None:
                continue
            if document.get("issuer") != issuer:
                raise _NotFetched("the metadata of auth.oidc.issuer names another issuer")
            try:
                return secure_url(str(document.get("jwks_uri")))
            except ValueError:
                raise _NotFetched("the metadata of the issuer names no https:// URL of signing keys") from None
        raise _NotFetched("the issuer has no metadata; set auth.oidc.jwks_url")

    def _read(self, client: httpx.Client, url: str) -> dict[str, Any] | None:
        """Return a JSON object, or None when there is none at that URL."""
        end = clock.monotonic() + 2 * self._settings.timeout
        with client.stream("GET", url, headers={"Accept": "application/json"}) as answer:
            if answer.status_code == httpx.codes.NOT_FOUND:
                return None
            if answer.status_code != httpx.codes.OK:
                raise _NotFetched(f"the issuer answers {answer.status_code}")
            body = bytearray()
            for part in answer.iter_bytes():
                body += part
                if len(body) > _MOST_BYTES or clock.monotonic() > end:
                    raise _NotFetched("the issuer's answer is too long or too slow")
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise _NotFetched("the issuer's answer is not JSON") from None
        if not isinstance(document, dict):
            raise _NotFetched("the issuer's answer is not a JSON object")
        return document


def _usable(keys: Any, algorithms: Sequence[str]) -> _Keys:
    """Return the public signature keys by id and algorithm. A key serves one family of algorithms, so no other."""
    usable: dict[tuple[str, str], jwt.PyJWK] = {}
    for key in keys[:_MOST_KEYS] if isinstance(keys, list) else ():
        if not isinstance(key, dict) or not isinstance(key.get("kid"), str) or _PRIVATE & key.keys():
            continue
        if key.get("use", "sig") != "sig" or "verify" not in key.get("key_ops", ["verify"]):
            continue
        for algorithm in algorithms:
            if key.get("alg", algorithm) != algorithm:
                continue
            try:
                usable.setdefault((key["kid"], algorithm), jwt.PyJWK(key, algorithm))
            except jwt.PyJWTError:
                continue
    return usable


def _certificates(settings: Oidc) -> ssl.SSLContext | bool:
    if settings.ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(settings.ca_file))
    except (OSError, ssl.SSLError):
        raise ConfigurationError(f"auth.oidc.ca_file {settings.ca_file}: is not a readable PEM file") from None
