"""Ed25519 keys of the checkpoints: the private ones that sign, the public ones that a verifier trusts."""

from __future__ import annotations

import os
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from service.errors import ConfigurationError

PublicKey = Ed25519PublicKey
_KEY_ID_CHARS: Final = 16


class Signer:
    """Signs with the current key, and during a rotation with the previous one too."""

    def __init__(self, current: Ed25519PrivateKey, previous: Ed25519PrivateKey | None = None) -> None:
        self._keys = [current] if previous is None else [current, previous]

    def sign(self, body: bytes) -> dict[str, str]:
        """Return the signatures in base64 by key id."""
        return {key_id(key.public_key()): b64encode(key.sign(body)).decode() for key in self._keys}

    def public_keys(self) -> list[Ed25519PublicKey]:
        """Return the public keys, the current one first."""
        return [key.public_key() for key in self._keys]


class TrustedKeys:
    """The public keys that a verifier was given."""

    def __init__(self, keys: Iterable[Ed25519PublicKey]) -> None:
        self._keys = {key_id(key): key for key in keys}

    def __len__(self) -> int:
        return len(self._keys)

    def accept(self, body: bytes, signatures: Mapping[str, str]) -> bool:
        """Tell whether a trusted key signed the body. A wrong signature in a trusted key's name is never accepted."""
        accepted = False
        for name, signature in signatures.items():
            key = self._keys.get(name)
            if key is None:
                continue
            try:
                key.verify(b64decode(signature, validate=True), body)
            except (InvalidSignature, ValueError):
                return False
            accepted = True
        return accepted


def key_id(key: Ed25519PublicKey) -> str:
    """Return the name of a key: the head of the SHA-256 of its 32 raw bytes, in hexadecimal."""
    return sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:_KEY_ID_CHARS]


def public_pem(key: Ed25519PublicKey) -> str:
    """Return a public key as PEM."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def open_private_key(path: Path, *, make: bool) -> Ed25519PrivateKey:
    """Read a private key from a PEM file; with `make` a missing one is made, with mode 0600.

    Raises:
        ConfigurationError: when the file is missing, is no Ed25519 key or can be read by everyone.
    """
    if make and not path.exists():
        _make(path)
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
        mode = path.stat().st_mode
    except OSError as error:
        raise ConfigurationError(f"audit.signing_key {path}: cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigurationError(f"audit.signing_key {path}: is not a PEM file with an unencrypted key") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"audit.signing_key {path}: is not an Ed25519 key; make one with openssl genpkey")
    if mode & 0o007:
        raise ConfigurationError(
            f"audit.signing_key {path}: everyone can read it: give it mode 0600, or 0400 where it is mounted"
        )
    return key


def read_public_keys(path: Path) -> list[Ed25519PublicKey]:
    """Read the public keys of a PEM file, one or several.

    Raises:
        ConfigurationError: when the file cannot be read or holds anything else.
    """
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        raise ConfigurationError(f"{path}: cannot be read as a PEM file with public keys") from None
    keys = []
    for block in text.split("-----END PUBLIC KEY-----")[:-1]:
        try:
            key = load_pem_public_key(f"{block.strip()}\n-----END PUBLIC KEY-----\n".encode())
        except (ValueError, UnsupportedAlgorithm):
            raise ConfigurationError(f"{path}: is not a PEM file with public keys") from None
        if not isinstance(key, Ed25519PublicKey):
            raise ConfigurationError(f"{path}: holds a key that is not an Ed25519 key")
        keys.append(key)
    if not keys:
        raise ConfigurationError(f"{path}: holds no public key; `memvault audit public-key` prints it")
    return keys


def _make(path: Path) -> None:
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        try:
            # The first of several processes wins: a key that has signed is never replaced.
            os.link(temporary, path)
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
    except OSError as error:
        raise ConfigurationError(f"audit.signing_key {path}: cannot be made ({error.strerror})") from None
