"""Reads the pages of the documentation: their headings, links, tables and fenced blocks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```(?P<language>[^\n]*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (?P<text>.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block and where it stands. `language` is the whole info string."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@cache
def pages() -> dict[str, str]:
    """Every page by its path from the root."""
    files = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in files}


def page(path: str) -> str:
    """The text of one page."""
    return pages()[path]


def blocks(path: str) -> list[Block]:
    """The fenced blocks of a page, in their order."""
    text = page(path)
    return [
        Block(path, text.count("\n", 0, found.start()) + 1, found["language"].strip(), found["text"])
        for found in _FENCE.finditer(text)
    ]


def prose(path: str) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", page(path))


def links(path: str) -> Iterator[str]:
    """The targets of a page's links."""
    for found in _LINK.finditer(prose(path)):
        yield found["target"]


def anchors(path: str) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    made = set()
    for found in _HEADING.finditer(prose(path)):
        words = re.sub(r"[^\w\- ]", "", found["text"].replace("`", "").lower())
        made.add(words.strip().replace(" ", "-"))
    return made


def table(path: str, first_column: str) -> list[dict[str, str]]:
    """The rows of the page's one table whose first heading is this, by heading."""
    lines = prose(path).splitlines()
    starts = [number for number, line in enumerate(lines) if _cells(line)[:1] == [first_column]]
    assert len(starts) == 1, f"{path}: {len(starts)} tables begin with the column {first_column!r}"
    start = starts[0]
    headings = _cells(lines[start])
    rows = []
    for line in lines[start + 2 :]:
        cells = _cells(line)
        if not cells:
            break
        assert len(cells) == len(headings), f"{path}: a row of another width: {line}"
        rows.append(dict(zip(headings, cells, strict=True)))
    return rows


def code(cell: str) -> list[str]:
    """What stands between backticks in a cell."""
    return re.findall(r"`([^`]+)`", cell)


def _cells(line: str) -> list[str]:
    if not line.startswith("|"):
        return []
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])]
