"""Checkpoints in a folder: one file a day, one checkpoint a line, only ever appended to."""

from __future__ import annotations

import fcntl
import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Final

from service.audit.checkpoints import BadDocument, Checkpoint, parse_line
from service.audit.sinks import SinkUnavailable
from service.errors import ConfigurationError, Unavailable

_PREFIX: Final = "checkpoints-"
_SUFFIX: Final = ".jsonl"
_BLOCK: Final = 65_536
#: A file of checkpoints is shorter than this many bits tell. With its number it has to fit into 63, and a bucket that
#: was copied has 16 million files a year.
_OFFSET_BITS: Final = 36


class FolderSink:
    """Appends to files in a folder. Writers of several processes take turns."""

    readable = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()

    @property
    def name(self) -> str:
        """The place itself: another folder begins with the first checkpoint."""
        return f"folder:{self._folder}"

    def deliver(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Append what is not there yet and wait for the disk.

        Raises:
            SinkUnavailable: also when the last one there is another checkpoint of the same number, which stays.
        """
        try:
            self._folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            with (self._folder / ".lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                head = self._head()
                there = 0 if head is None else head.body.number
                for checkpoint in checkpoints:
                    number = checkpoint.body.number
                    if head is not None and number == there and checkpoint.hash != head.hash:
                        raise SinkUnavailable(
                            f"{self._folder}: has another checkpoint {number}, which stays: another installation or a"
                            " restored copy of this one delivered it; give each a folder of its own"
                        )
                    if number > there:
                        self._append(checkpoint)
        except OSError as error:
            raise SinkUnavailable(f"{self._folder}: checkpoints cannot be written ({error.strerror})") from None

    def is_empty(self) -> bool:
        """Tell whether the folder has no file of checkpoints, or is not there."""
        return next(self._folder.glob(f"{_PREFIX}*{_SUFFIX}"), None) is None

    def newest(self, *, beyond: int) -> Checkpoint | None:
        """Return the last checkpoint in the folder if its number is above `beyond`."""
        try:
            head = self._head()
        except OSError as error:
            raise SinkUnavailable(f"{self._folder}: checkpoints cannot be read ({error.strerror})") from None
        return head if head is not None and head.body.number > beyond else None

    def _append(self, checkpoint: Checkpoint) -> None:
        name = f"{_PREFIX}{checkpoint.body.at.date().isoformat()}{_SUFFIX}"
        # Behind a clock that was ahead the newest file goes on, so that what is last in it is the newest of all.
        names = (path.name for path in self._folder.glob(f"{_PREFIX}*{_SUFFIX}"))
        with (self._folder / max([name, *names])).open("a+b") as file:
            _cut_unfinished(file)
            file.write(checkpoint.line() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _head(self) -> Checkpoint | None:
        """The newest last line of the newest files: earlier releases went back to older ones with the clock."""
        heads = []
        for path in sorted(self._folder.glob(f"{_PREFIX}*{_SUFFIX}"), reverse=True)[:3]:
            line = _last_line(path)
            if line:
                try:
                    heads.append(parse_line(line))
                except BadDocument:
                    raise SinkUnavailable(f"{path}: the last line is no checkpoint") from None
        return max(heads, key=lambda checkpoint: checkpoint.body.number, default=None)


class CheckpointFiles:
    """Exported checkpoints to verify with: a file, or the `.jsonl` and `.json` files of a folder."""

    def __init__(self, path: Path) -> None:
        """Look which files there are.

        Raises:
            ConfigurationError: when a folder has none.
        """
        self._folder = path if path.is_dir() else path.parent
        # One after the other: a bucket that was copied here has a file for each of millions of checkpoints.
        self._names = bytearray()
        self._ends = array("q")
        for file in _found(path) if path.is_dir() else [path]:
            self._names += os.fsencode(file.relative_to(self._folder))
            self._ends.append(len(self._names))
        if not self._ends:
            raise ConfigurationError(f"{path}: holds no checkpoints (.jsonl or .json)")

    def places(self) -> Iterator[tuple[int, Checkpoint]]:
        """Yield each checkpoint with its file and where its line begins there.

        Raises:
            ConfigurationError: when a file cannot be read, or naming the line that is no checkpoint.
        """
        for index in range(len(self._ends)):
            file = self._file(index)
            begin, number = index << _OFFSET_BITS, 0
            try:
                with file.open("rb") as lines:
                    for line in lines:
                        number += 1
                        # Without an end the process was killed while it wrote this line; it is written again.
                        if line.endswith(b"\n") or file.suffix != ".jsonl":
                            yield begin, parse_line(line)
                        begin += len(line)
            except BadDocument as error:
                raise ConfigurationError(f"{file}, line {number}: {error}") from None
            except OSError as error:
                raise ConfigurationError(f"{file}: cannot be read ({error.strerror})") from None

    def at(self, place: int) -> Checkpoint:
        """Read the checkpoint of a line once more.

        Raises:
            Unavailable: when the file was changed.
        """
        file = self._file(place >> _OFFSET_BITS)
        try:
            with file.open("rb") as lines:
                lines.seek(place & ((1 << _OFFSET_BITS) - 1))
                return parse_line(lines.readline())
        except (BadDocument, OSError):
            raise Unavailable(f"{file}: was changed while it was read") from None

    def _file(self, index: int) -> Path:
        begin = self._ends[index - 1] if index else 0
        return self._folder / os.fsdecode(bytes(self._names[begin : self._ends[index]]))


def _found(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder that may hold checkpoints, those of each folder in order."""
    for where, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            file = Path(where, name)
            if file.suffix in (".jsonl", ".json") and file.is_file():
                yield file


def _cut_unfinished(file: IO[bytes]) -> None:
    """Remove what a killed process left of a line."""
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return
    file.seek(end - 1)
    if file.read(1) == b"\n":
        return
    file.truncate(_line_start(file, end))


def _last_line(path: Path) -> bytes:
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        whole = _line_start(file, end)
        if whole == 0:
            return b""
        start = _line_start(file, whole - 1)
        file.seek(start)
        return file.read(whole - start)


def _line_start(file: IO[bytes], end: int) -> int:
    """Return where the line begins that holds the byte before `end`: behind the last line end, or 0."""
    while end > 0:
        start = max(0, end - _BLOCK)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
