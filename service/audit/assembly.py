"""Puts sealing together from the settings: which keys sign and are trusted, and where checkpoints go."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from service.audit.keeper import Keeper
from service.audit.ledger import Ledger
from service.audit.retention import OldParts
from service.audit.sealing import Sealer
from service.audit.signing import PublicKey, Signer, TrustedKeys, open_private_key, read_public_keys
from service.audit.sinks import Sink
from service.audit.sinks.folder import FolderSink
from service.audit.sinks.s3 import S3Sink
from service.audit.sinks.stdout import StdoutSink
from service.audit.trail import Trail
from service.errors import ConfigurationError
from service.scope import TenantId
from service.settings import Settings
from service.storage.database import Database


@dataclass(frozen=True, slots=True)
class Sealing:
    """What keeps the trail sealed."""

    keeper: Keeper
    ledger: Ledger
    signer: Signer
    trusted: TrustedKeys
    old_parts: OldParts


def open_sealing(
    settings: Settings, database: Database, trail: Trail, tenants: Callable[[], Sequence[TenantId]]
) -> Sealing:
    """Open the signing key and the places for checkpoints; nothing runs yet. `tenants` tells all with a trail.

    Raises:
        ConfigurationError: when the signing key is missing, cannot be used or lies where the database does.
    """
    signer = open_signer(settings)
    trusted = TrustedKeys([*signer.public_keys(), *_retired_keys(settings)])
    ledger = Ledger(database)
    sealer = Sealer(database, ledger, signer, trusted)
    interval = settings.audit.seal_interval
    keeper = Keeper(database, sealer, ledger, _sinks(settings), trusted, tenants, interval=interval)
    return Sealing(keeper, ledger, signer, trusted, OldParts(database, ledger, trail, keeper))


def open_signer(settings: Settings) -> Signer:
    """Return what signs for this installation.

    Raises:
        ConfigurationError: when the signing key is missing, cannot be used or lies where the database does.
    """
    previous = settings.audit.previous_signing_key
    return Signer(
        open_private_key(_signing_key(settings), make=settings.embedded),
        None if previous is None else open_private_key(previous, make=False),
    )


def trusted_keys(settings: Settings) -> TrustedKeys:
    """Return the keys that checkpoints of this installation are verified with, as far as this process can read them."""
    keys = list(_retired_keys(settings))
    for path in (_signing_key(settings), settings.audit.previous_signing_key):
        if path is not None and path.exists():
            keys.append(open_private_key(path, make=False).public_key())
    return TrustedKeys(keys)


def checkpoint_folder(settings: Settings) -> Path | None:
    """Return the folder that checkpoints go to, the default resolved."""
    if settings.audit.checkpoint_folder is not None:
        return settings.audit.checkpoint_folder
    return settings.data_dir / "checkpoints" if settings.embedded else None


def _signing_key(settings: Settings) -> Path:
    path = settings.audit.signing_key
    if settings.embedded:
        return path or settings.keys_folder / "audit-signing.pem"
    if path is None:
        raise ConfigurationError(
            "audit.signing_key: is needed with database.url: a PEM file outside the data folder;"
            " make one with `openssl genpkey -algorithm ed25519`"
        )
    if path.resolve().is_relative_to(settings.data_dir.resolve()):
        raise ConfigurationError(f"audit.signing_key {path}: must not lie in the data folder {settings.data_dir}")
    return path


def _retired_keys(settings: Settings) -> list[PublicKey]:
    return [key for path in settings.audit.public_keys for key in read_public_keys(path)]


def _sinks(settings: Settings) -> tuple[Sink, ...]:
    sinks: list[Sink] = []
    if (folder := checkpoint_folder(settings)) is not None:
        sinks.append(FolderSink(folder))
    if settings.audit.checkpoint_stdout:
        sinks.append(StdoutSink())
    if settings.audit.s3.bucket is not None:
        sinks.append(S3Sink(settings.audit.s3))
    return tuple(sinks)
