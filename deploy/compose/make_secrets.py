"""Makes the passwords and keys of a compose installation, once, and gives each container its own.

make        writes what is missing; what is there stays as it is
set NAME    reads a secret of yours from standard input (MEMVAULT_LLM__API_KEY) for the service and the worker, and
            one of the trail or the keyring for `restored` too
unset NAME  takes such a secret back
"""

from __future__ import annotations

import json
import os
import re
import secrets
import sys
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from psycopg import pq

from service.settings.loading import is_setting

OUT: Final = Path(os.environ.get("OUT", "/out"))
#: The user of the image. Other images run as users of their own, who read what everybody may: each volume is seen by
#: one of them only.
UID: Final = 10001
_DATABASE: Final = "memvault"
#: What the service and the worker cannot be without.
_MADE: Final = frozenset({"MEMVAULT_DATABASE__URL", "MEMVAULT_INDEX__API_KEY", "MEMVAULT_BOOTSTRAP_KEY"})
#: Sections that a restore is declared with.
_DECLARED_WITH: Final = ("MEMVAULT_AUDIT__", "MEMVAULT_KEYRING__")
_OWNER, _APP = "memvault_owner", "memvault_app"


def make() -> None:
    """Write the secrets of every container."""
    kept = _kept()
    app = f"postgresql://{_APP}:{kept['app']}@postgres:5432/{_DATABASE}"
    owner = f"postgresql://{_OWNER}:{kept['owner']}@postgres:5432/{_DATABASE}"
    for container, files in {
        "service": {
            "MEMVAULT_DATABASE__URL": app,
            "MEMVAULT_INDEX__API_KEY": kept["qdrant"],
            "MEMVAULT_BOOTSTRAP_KEY": kept["bootstrap"],
        },
        "worker": {
            "MEMVAULT_DATABASE__URL": app,
            "MEMVAULT_INDEX__API_KEY": kept["qdrant"],
            "audit-signing.pem": kept["signing"],
        },
        "migrate": {"MEMVAULT_DATABASE__URL": app, "MEMVAULT_DATABASE__OWNER_URL": owner},
        "restored": {
            "MEMVAULT_DATABASE__URL": app,
            "MEMVAULT_DATABASE__OWNER_URL": owner,
            "audit-signing.pem": kept["signing"],
        },
    }.items():
        for name, value in files.items():
            _write(OUT / container / name, value, uid=UID, mode=0o400)
    for path in sorted((OUT / "worker").glob("MEMVAULT_*")):
        if path.name.startswith(_DECLARED_WITH):
            _write(OUT / "restored" / path.name, path.read_text(encoding="utf-8"), uid=UID, mode=0o400)
    _write(OUT / "postgres" / "superuser-password", kept["superuser"], mode=0o444)
    _write(OUT / "postgres" / "roles.sql", _roles(kept), mode=0o444)
    _write(OUT / "qdrant" / "config.yaml", f"service:\n  api_key: {kept['qdrant']}\n", mode=0o444)
    sys.stdout.write("the secrets of this installation are in its volumes\n")


def set_secret(name: str) -> None:
    """Give a secret that is read from standard input to those who need it."""
    if not is_setting(name):
        raise SystemExit(f"{name}: must be the environment variable of a setting, such as MEMVAULT_LLM__API_KEY")
    value = sys.stdin.read().strip()
    if not value:
        raise SystemExit(f"{name}: nothing came over standard input")
    for container in _readers(name):
        path = OUT / container / name
        path.unlink(missing_ok=True)
        _write(path, value, uid=UID, mode=0o400)
    sys.stdout.write(f"{name} is set; docker compose up --detach --force-recreate service worker takes it up\n")


def unset_secret(name: str) -> None:
    """Take a secret away that was set, whatever it is called; what this program made stays."""
    if not re.fullmatch(r"MEMVAULT_[A-Z0-9_]+", name) or name in _MADE:
        raise SystemExit(f"{name}: is none that was set; docs/operate/compose.md")
    for container in _readers(name):
        (OUT / container / name).unlink(missing_ok=True)
    sys.stdout.write(f"{name} is not set; docker compose up --detach --force-recreate service worker takes it up\n")


def _readers(name: str) -> tuple[str, ...]:
    return ("service", "worker", "restored") if name.startswith(_DECLARED_WITH) else ("service", "worker")


def _kept() -> dict[str, str]:
    """What was made at the first start, from the one place from which all others are written again."""
    path = OUT / "all" / "secrets.json"
    if path.exists():
        kept: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
        return kept
    made = {name: secrets.token_hex(24) for name in ("app", "owner", "superuser", "qdrant", "bootstrap")}
    made["signing"] = (
        Ed25519PrivateKey.generate()
        .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        .decode()
    )
    _write(path, json.dumps(made), mode=0o400)
    return made


def _roles(kept: dict[str, str]) -> str:
    """The roles by their verifiers, not by their passwords: neither may do more than the documentation says."""
    lines = []
    for role in ("owner", "app"):
        name = {"owner": _OWNER, "app": _APP}[role]
        verifier = _verifier(name, kept[role])
        lines.append(f"CREATE ROLE {name} LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE PASSWORD '{verifier}';")
    lines += [
        f"CREATE DATABASE {_DATABASE} OWNER {_OWNER} ENCODING 'UTF8' TEMPLATE template0;",
        f"REVOKE ALL ON DATABASE {_DATABASE} FROM PUBLIC;",
        f"GRANT CONNECT ON DATABASE {_DATABASE} TO {_APP};",
    ]
    return "\n".join(lines) + "\n"


def _verifier(user: str, password: str) -> str:
    """What PostgreSQL keeps of a password; the library asks for a connection, but not for one that stands."""
    unconnected = pq.PGconn.connect(b"host=/nowhere")
    return unconnected.encrypt_password(password.encode(), user.encode(), b"scram-sha-256").decode()


def _write(path: Path, value: str, *, mode: int, uid: int = 0) -> None:
    """Write a file at once or not at all; one that is there stays."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(value)
        file.flush()
        os.fsync(file.fileno())
    # In this order: the container may give a file away, and not change the mode of one that is another's.
    part.chmod(mode)
    if os.geteuid() == 0:
        os.chown(part, uid, uid)
    part.replace(path)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make"]:
            make()
        case ["set", name]:
            set_secret(name)
        case ["unset", name]:
            unset_secret(name)
        case _:
            raise SystemExit(__doc__)
