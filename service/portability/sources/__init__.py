"""Where imports come from: a source by its kind, or by what stands at its place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.audit.moves import ImportSource
from service.errors import ConfigurationError
from service.portability.folder import MANIFEST, read_folder
from service.portability.imports import Source
from service.portability.lines import read_lines
from service.portability.records import Placed

#: How each source is called on the command line.
NAMES: Final = {
    "export": ImportSource.EXPORT,
}


@dataclass(frozen=True, slots=True)
class Options:
    """What a source may need besides its place."""

    collection: str = "mem0"
    history: Path | None = None


def open_source(place: str, kind: str | None, options: Options) -> tuple[ImportSource, Source]:
    """Return what a source is, and what opens it, as often as asked.

    Raises:
        ConfigurationError: when it is not there, or it cannot be told what it is.
    """
    chosen = NAMES.get(kind) if kind is not None else _told_by(place)
    if chosen is None:
        known = ", ".join(NAMES)
        raise ConfigurationError(f"{place}: it cannot be told what this is; say --from with one of {known}")
    path = Path(place)
    if not path.exists():
        raise ConfigurationError(f"{place}: is not there")
    if path.is_dir():
        return chosen, lambda: read_folder(path)
    return chosen, lambda: _file(path)


def _told_by(place: str) -> ImportSource | None:
    path = Path(place)
    if (path / MANIFEST).exists() or path.suffix == ".jsonl":
        return ImportSource.EXPORT
    return None


def _file(path: Path) -> Iterator[Placed]:
    with path.open("rb") as file:
        yield from read_lines((f"{path.name}:{number}", line) for number, line in enumerate(file, 1) if line.strip())
