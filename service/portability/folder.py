"""An export as a folder: parts of JSON lines and a manifest with checksums; an export that was cut short goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import orjson

from service import clock
from service.errors import ConfigurationError, Conflict
from service.portability.archives import digest, write_durably
from service.portability.exports import Batch
from service.portability.lines import FORMAT, read_lines
from service.portability.records import Placed

MANIFEST: Final = "manifest.json"
_UNFINISHED: Final = "unfinished.json"
#: Bytes after which a part is closed and the next begun.
_PART_BYTES: Final = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Written:
    """What is in the folder."""

    files: int
    lines: int
    memories: int
    resumed: bool


class ExportFolder:
    """Writes an export. Each part is whole before the state file tells of it, so that a killed export is resumed."""

    def __init__(self, folder: Path, *, about: dict[str, Any]) -> None:
        """`about` says what is exported; a folder with an unfinished export of something else is refused.

        Raises:
            Conflict: when the folder holds a finished export, or anything else.
            ConfigurationError: when it cannot be used.
        """
        self._folder = folder
        self._about = about
        self._files: list[dict[str, Any]] = []
        self._after: str | None = None
        self.resumed = False
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if (folder / _UNFINISHED).exists():
                self._resume(orjson.loads((folder / _UNFINISHED).read_bytes()))
            elif any(folder.iterdir()):
                raise Conflict(f"{folder}: is not empty; name a new folder")
            self._save(_UNFINISHED, self._state())
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigurationError(f"{folder}: cannot be used ({type(error).__name__})") from None

    @property
    def after(self) -> str | None:
        """Where to go on."""
        return self._after

    @property
    def complete(self) -> bool:
        """Whether all parts are there and only the manifest is missing."""
        return bool(self._files) and self._after is None

    @property
    def memories(self) -> int:
        """How many memories are written already."""
        return sum(int(file["memories"]) for file in self._files)

    def write(self, batches: Iterator[Batch], *, progress: Callable[[int], None] = lambda memories: None) -> Written:
        """Write the rest of the export, then the manifest."""
        done = self.memories
        progress(done)
        part: list[bytes] = []
        size = memories = 0
        for batch in () if self.complete else batches:
            part += batch.lines
            size += sum(len(line) for line in batch.lines)
            memories += batch.memories
            done += batch.memories
            if size >= _PART_BYTES or batch.after is None:
                self._finish_part(part, memories, batch.after)
                part, size, memories = [], 0, 0
            progress(done)
        self._save(MANIFEST, {**self._about, "format": FORMAT, "finished_at": clock.now().isoformat()} | self._told())
        (self._folder / _UNFINISHED).unlink()
        return Written(len(self._files), sum(int(file["lines"]) for file in self._files), self.memories, self.resumed)

    def _finish_part(self, lines: list[bytes], memories: int, after: str | None) -> None:
        content = b"".join(lines)
        name = f"part-{len(self._files) + 1:05}.jsonl"
        write_durably(self._folder / name, content)
        self._files.append(
            {
                "name": name,
                "bytes": len(content),
                "lines": len(lines),
                "memories": memories,
                "sha256": sha256(content).hexdigest(),
            }
        )
        self._after = after
        self._save(_UNFINISHED, self._state())

    def _resume(self, state: dict[str, Any]) -> None:
        if state["about"] != self._about:
            raise Conflict(f"{self._folder}: holds an unfinished export of something else; name a new folder")
        self._files, self._after = state["files"], state["after"]
        self.resumed = True

    def _state(self) -> dict[str, Any]:
        return {"about": self._about, "files": self._files, "after": self._after}

    def _told(self) -> dict[str, Any]:
        return {"files": self._files, "memories": self.memories}

    def _save(self, name: str, document: dict[str, Any]) -> None:
        write_durably(self._folder / name, orjson.dumps(document, option=orjson.OPT_INDENT_2))


def read_folder(folder: Path) -> Iterator[Placed]:
    """Read an export, its checksums verified first.

    Raises:
        ConfigurationError: when it is none, is unfinished, or is not what was written.
        Unreadable: for a line that cannot be understood.
    """
    return read_lines(_lines(folder, [folder / file["name"] for file in verified(folder)]))


def verified(folder: Path) -> list[dict[str, Any]]:
    """Return the files of an export as the manifest tells them, once each is what was written.

    Raises:
        ConfigurationError: naming the file that is not.
    """
    try:
        manifest: Any = orjson.loads((folder / MANIFEST).read_bytes())
        files = list(manifest["files"])
        if manifest["format"] != FORMAT:
            raise ConfigurationError(f"{folder}: is an export of another format than {FORMAT}")
        for file in files:
            path = folder / Path(file["name"]).name
            if digest(path) != file["sha256"]:
                raise ConfigurationError(f"{path}: is not what was written: its checksum differs from the manifest's")
    except FileNotFoundError as error:
        unfinished = (folder / _UNFINISHED).exists()
        why = "is unfinished: run the export again to go on" if unfinished else "is missing"
        raise ConfigurationError(f"{error.filename}: {why}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{folder}: is no export of Memvault ({type(error).__name__})") from None
    return files


def _lines(folder: Path, paths: list[Path]) -> Iterator[tuple[str, bytes]]:
    for path in paths:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield f"{path.name}:{number}", line
