"""Where imports come from: a source by its kind, or by what stands at its place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service import clock
from service.audit.moves import ImportSource
from service.errors import ConfigurationError
from service.portability.folder import MANIFEST, read_folder
from service.portability.imports import Source
from service.portability.lines import read_lines
from service.portability.records import Placed
from service.portability.sources.files import read_openmemory, read_platform
from service.portability.sources.stores import read_pgvector, read_qdrant

#: How each source is called on the command line.
NAMES: Final = {
    "export": ImportSource.EXPORT,
    "platform": ImportSource.PLATFORM,
    "qdrant": ImportSource.QDRANT,
    "pgvector": ImportSource.PGVECTOR,
    "openmemory": ImportSource.OPENMEMORY,
}
_POSTGRES: Final = ("postgresql://", "postgres://")


@dataclass(frozen=True, slots=True)
class Options:
    """What a source may need besides its place."""

    collection: str = "mem0"
    history: Path | None = None
    qdrant_api_key: str | None = None


def open_source(place: str, kind: str | None, options: Options) -> tuple[ImportSource, Source]:
    """Return what a source is, and what opens it, as often as asked.

    Raises:
        ConfigurationError: when it is not there, or it cannot be told what it is.
    """
    chosen = NAMES.get(kind) if kind is not None else _told_by(place)
    if chosen is None:
        known = ", ".join(NAMES)
        raise ConfigurationError(f"{_shown(place)}: it cannot be told what this is; say --from with one of {known}")
    # One moment for both readings: what has no time of its own gets the same in both.
    now, collection, history = clock.now(), options.collection, options.history
    if chosen is ImportSource.PGVECTOR:
        return chosen, lambda: read_pgvector(place, collection, history, now)
    path = Path(place)
    if not place.startswith(("http://", "https://")) and not path.exists():
        raise ConfigurationError(f"{place}: is not there")
    if chosen is ImportSource.QDRANT:
        return chosen, lambda: read_qdrant(place, collection, options.qdrant_api_key, history, now)
    if chosen is ImportSource.PLATFORM:
        return chosen, lambda: read_platform(path, now)
    if chosen is ImportSource.OPENMEMORY:
        return chosen, lambda: read_openmemory(path, now)
    if path.is_dir():
        return chosen, lambda: read_folder(path)
    return chosen, lambda: _file(path)


def _told_by(place: str) -> ImportSource | None:
    if place.startswith(_POSTGRES):
        return ImportSource.PGVECTOR
    path = Path(place)
    if place.startswith(("http://", "https://")) or (path / "collection").is_dir():
        return ImportSource.QDRANT
    if (path / MANIFEST).exists():
        return ImportSource.EXPORT
    by_name = {".jsonl": ImportSource.EXPORT, ".json": ImportSource.PLATFORM, ".zip": ImportSource.OPENMEMORY}
    return by_name.get(path.suffix)


def _shown(place: str) -> str:
    return "the database" if place.startswith(_POSTGRES) else place


def _file(path: Path) -> Iterator[Placed]:
    with path.open("rb") as file:
        yield from read_lines((f"{path.name}:{number}", line) for number, line in enumerate(file, 1) if line.strip())
