"""What secrets in the settings must be: long enough to be worth trying nothing, and none that everybody knows."""

from __future__ import annotations

from base64 import b64decode
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit

from service.settings.base import is_loopback

#: Characters of a secret that opens the service itself, and of a password that a network can try.
LEAST_KEY: Final = 32
LEAST_PASSWORD: Final = 12
#: Characters of an API key at most; one that is longer is not looked up.
MOST_KEY: Final = 512
#: Different characters in a key: one that somebody held a key down for has fewer.
_LEAST_KINDS: Final = 10
#: What manuals, images and examples come with; also as a part of something longer.
_DEFAULTS: Final = (
    "changeme",
    "change-me",
    "change_me",
    "replaceme",
    "replace-me",
    "your-secret",
    "your_key",
    "example",
)
_WORDS: Final = frozenset({"postgres", "postgresql", "password", "passw0rd", "memvault", "secret", "admin", "qdrant"})


def check_key(secret: str) -> None:
    """Return if a secret can be an admin key.

    Raises:
        ValueError: with what to do instead; the secret is not in it.
    """
    if len(secret) < LEAST_KEY:
        raise ValueError(f"must have {LEAST_KEY} characters or more: {_make(LEAST_KEY)}")
    if is_default(secret) or len(set(secret)) < _LEAST_KINDS:
        raise ValueError(f"is one that can be guessed: {_make(LEAST_KEY)}")
    # What a header cannot carry, or is never looked up, would be refused with each request.
    if len(secret) > MOST_KEY or not (secret.isascii() and secret.isprintable()) or secret != secret.strip():
        raise ValueError(
            f"cannot be sent as a key, which has {MOST_KEY} characters at most, all of printable ASCII, no space at "
            f"either end: {_make(LEAST_KEY)}"
        )


def check_database_url(url: str) -> None:
    """Return if this is a URL of Postgres, and its password worth something where a network can try it.

    Without a password the server decides in another way (a certificate, a socket); on this machine any will do.

    Raises:
        ValueError: with what to do instead; neither the URL nor the password is in it.
    """
    if not url.startswith(("postgresql://", "postgres://")):
        raise ValueError("must be a postgresql:// URL")
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    hosts = [*(parts.hostname or "").split(","), *query.get("host", []), *query.get("hostaddr", [])]
    remote = any(host and not host.startswith("/") and not is_loopback(host) for host in hosts)
    password = unquote(parts.password) if parts.password is not None else query.get("password", [None])[0]
    if not remote or password is None:
        return
    user = unquote(parts.username or "")
    if len(password) < LEAST_PASSWORD or is_default(password) or password.lower() == user.lower():
        raise ValueError(
            f"has a password that is short or a default one, for a server on another machine: give its role one of "
            f"{LEAST_PASSWORD} characters or more (ALTER ROLE … PASSWORD)"
        )


def check_wrapping_key(encoded: str) -> None:
    """Return if a secret can wrap keys.

    Raises:
        ValueError: with what to do instead; the secret is not in it.
    """
    try:
        key = b64decode(encoded.strip(), validate=True)
    except ValueError:
        key = b""
    if len(key) != LEAST_KEY or len(set(key)) < _LEAST_KINDS:
        raise ValueError("must be 32 random bytes in base64: make them with `openssl rand -base64 32`")


def same_database(one: str, other: str) -> bool:
    """Tell whether two URLs of Postgres name one database of one server, as far as their words tell."""
    return bool(_places(one) & _places(other))


def _places(url: str) -> set[tuple[str, str, str]]:
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    _, _, netloc = parts.netloc.rpartition("@")
    named = [tuple(one.rsplit(":", 1)) if ":" in one.rpartition("]")[2] else (one, "") for one in netloc.split(",")]
    hosts = [host for host, _ in named if host] or query.get("host", query.get("hostaddr", [""]))
    ports = [port for _, port in named] if any(host for host, _ in named) else []
    default = query.get("port", ["5432"])[0]
    name = unquote(parts.path.lstrip("/")) or query.get("dbname", [unquote(parts.username or "")])[0]
    return {
        ("localhost" if is_loopback(host.strip("[]")) else unquote(host).lower(), port or default, name)
        for host, port in zip(hosts, [*ports, *[""] * len(hosts)], strict=False)
    }


def is_default(secret: str) -> bool:
    """Tell whether a secret is, or is made of, what everybody knows."""
    plain = secret.lower().strip("0123456789!.-_ ")
    return plain in _WORDS or any(word in secret.lower() for word in _DEFAULTS)


def _make(length: int) -> str:
    return f"make one with `openssl rand -hex {length}`"
