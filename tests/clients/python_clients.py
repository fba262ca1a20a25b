"""The older Python clients and the command line client, each in an environment that `make test-deps` makes."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "config" / "requirements"
#: Where `make test-deps` puts them.
INSTALLED = ROOT / ".venv" / "clients"
#: The environments, each with the name of its requirements file.
NAMES = ("client-1.0.11", "client-0.1.118", "client-cli-0.2.13")
_MADE = ".made"


class NotInstalled(Exception):
    """The environment is not there, and why."""


@dataclass(frozen=True)
class Environment:
    """An environment of its own for one client."""

    name: str
    folder: Path

    @property
    def python(self) -> Path:
        """Its Python."""
        return self.folder / "bin" / "python"

    @property
    def fingerprint(self) -> str:
        """What it is made of."""
        requirements = (REQUIREMENTS / f"{self.name}.txt").read_bytes()
        return hashlib.sha256(requirements + sys.version.encode() + str(self.folder).encode()).hexdigest()

    @property
    def is_made(self) -> bool:
        """Whether it is there, whole and of today's requirements."""
        made = self.folder / _MADE
        return made.is_file() and made.read_text(encoding="utf-8") == self.fingerprint


def find(name: str, folder: Path = INSTALLED) -> Environment:
    """Return the environment of a client; no network is asked.

    Raises:
        NotInstalled: when `make test-deps` has not made it.
    """
    environment = Environment(name, folder / name)
    if not environment.is_made:
        raise NotInstalled(f"`make test-deps` has not made the environment {name}")
    return environment


def install(folder: Path = INSTALLED) -> None:
    """Make every environment that is not there: wheels with their hashes only, as for the service itself.

    Raises:
        CalledProcessError: when the packages cannot be had.
    """
    for name in NAMES:
        environment = Environment(name, folder / name)
        if environment.is_made:
            continue
        shutil.rmtree(environment.folder, ignore_errors=True)
        venv.create(environment.folder, with_pip=False, symlinks=True)
        pip = [sys.executable, "-m", "pip", "--python", str(environment.python), "install", "--quiet", "--no-deps"]
        # Most of what is there is never imported.
        pip += ["--no-compile"]
        requirements = str(REQUIREMENTS / f"{name}.txt")
        subprocess.run([*pip, "--require-hashes", "--only-binary", ":all:", "-r", requirements], check=True)
        (environment.folder / _MADE).write_text(environment.fingerprint, encoding="utf-8")


if __name__ == "__main__":
    install()
