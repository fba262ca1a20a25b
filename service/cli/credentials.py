"""The first admin key: made on the first start, kept in `credentials.json`, and never made twice."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any, Final

from service import wiring
from service.auth.keys import new_secret
from service.errors import ConfigurationError, Conflict
from service.tenants.actions import Tenant

#: Where the key is kept, in the data folder.
FILE: Final = "credentials.json"
_FIELDS: Final = frozenset({"tenant_id", "api_key", "url"})


class KeyState(Enum):
    """What is known of an admin key of the first tenant."""

    NEW = auto()
    KEPT = auto()
    REFUSED = auto()
    UNKNOWN = auto()
    BOOTSTRAP = auto()


@dataclass(frozen=True, slots=True)
class FirstKey:
    """The kept credentials: `tenant_id`, `api_key` and `url`. Empty unless the state is NEW, KEPT or REFUSED."""

    state: KeyState
    credentials: dict[str, str]


def first_key(installation: wiring.Installation, url: str) -> FirstKey:
    """Make the tenant `default` and its admin key on the first start, and keep the address of this one.

    Only the process that owns the index folder may call it: two at once would keep two keys in one file. The secret is
    on disk before it is accepted, so that a crash in between leaves no key that nobody knows: the next start accepts
    the secret that is kept. With a bootstrap key nothing is minted and nothing is kept on disk: whoever set it has it.

    Raises:
        ConfigurationError: when `credentials.json` cannot be read or written.
    """
    settings = installation.settings
    tenant = _default_tenant(installation)
    if settings.bootstrap_key is not None:
        installation.keys.ensure_bootstrap(tenant.id, settings.bootstrap_key.get_secret_value())
        return FirstKey(KeyState.BOOTSTRAP, {})
    path = settings.data_dir / FILE
    kept = _read(path)
    if kept is None:
        if installation.keys.list_for_installation(tenant.id):
            # Keys exist and the file is gone: making another admin key unasked would be a way around a revocation.
            return FirstKey(KeyState.UNKNOWN, {})
        kept = {"tenant_id": str(tenant.id), "api_key": new_secret(), "url": url}
        _write(path, kept)
    elif kept["url"] != url:
        kept["url"] = url
        _write(path, kept)
    secret = kept["api_key"]
    # A file of another installation, of one whose database was lost say, gives nobody a key of this one.
    own = kept["tenant_id"] == str(tenant.id)
    if own and installation.keys.ensure_bootstrap(tenant.id, secret, label="first admin key"):
        return FirstKey(KeyState.NEW, kept)
    # The keys of a suspended tenant are not gone.
    alive = tenant.status != "active" or installation.keys.find_principal(secret) is not None
    return FirstKey(KeyState.KEPT if alive else KeyState.REFUSED, kept)


def _default_tenant(installation: wiring.Installation) -> Tenant:
    """Return the tenant `default`, made where there is none yet."""
    tenants = installation.tenants
    found = tenants.find(wiring.DEFAULT_TENANT)
    if found is None:
        try:
            return tenants.create(wiring.DEFAULT_TENANT)
        except Conflict:
            # Another replica that starts on the same empty database was first.
            return tenants.get(wiring.DEFAULT_TENANT)
    return found


def _read(path: Path) -> dict[str, str] | None:
    try:
        kept: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        kept = None
    if not isinstance(kept, dict) or not all(isinstance(kept.get(name), str) for name in _FIELDS):
        raise ConfigurationError(f"{path}: cannot be read; remove it and make a key with `memvault key create`")
    return {name: kept[name] for name in _FIELDS}


def _write(path: Path, credentials: dict[str, str]) -> None:
    """Replace the file, at once and durably."""
    temporary = path.with_suffix(".new")
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(credentials, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be written ({error.strerror})") from None
