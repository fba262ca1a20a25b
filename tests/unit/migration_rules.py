"""Reads a migration and says what in it a release before it could not go on with, or would wait for."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: What takes something away from, or asks more of, a release that does not know the migration.
_CONTRACTS: Final = {
    r"\bDROP\s+(TABLE|COLUMN|VIEW|TYPE|SEQUENCE|SCHEMA|FUNCTION)\b": "drops what an older release may use",
    r"\bRENAME\b": "renames what an older release may use",
    r"\bALTER\s+(COLUMN\s+)?\w+\s+(SET\s+DATA\s+)?TYPE\b": "changes the type of a column",
    r"\bSET\s+NOT\s+NULL\b": "refuses rows that an older release may write",
    r"\bADD\s+CONSTRAINT\b(?!.*\bFOREIGN\s+KEY\b.*\bNOT\s+VALID\b)": "refuses rows that an older release may write",
    r"\bDROP\s+DEFAULT\b": "refuses rows that an older release may write",
    r"\bREVOKE\b": "takes a right away",
    r"\bTRUNCATE\b": "removes rows",
}
_OPERATIONS: Final = {"drop_column", "drop_table", "rename_table", "drop_constraint", "alter_column"}
_NEW_TABLE: Final = re.compile(r"CREATE\s+(?:UNLOGGED\s+)?TABLE\s+(?:IF\s+NOT\s+EXISTS\s+)?(\w+)", re.IGNORECASE)
_NEW_FUNCTION: Final = re.compile(r"CREATE\s+(?:OR\s+REPLACE\s+)?FUNCTION\s+(\w+)", re.IGNORECASE)
_INDEX: Final = re.compile(
    r"CREATE\s+(?:UNIQUE\s+)?INDEX\s+(CONCURRENTLY\s+)?\w+\s+ON\s+(?:ONLY\s+)?(\w+)", re.IGNORECASE
)
_UNIQUE: Final = re.compile(
    r"CREATE\s+UNIQUE\s+INDEX\s+(?:CONCURRENTLY\s+)?\w+\s+ON\s+(?:ONLY\s+)?(\w+)", re.IGNORECASE
)
_ADDED: Final = re.compile(r"\bADD\s+COLUMN\s+(?:IF\s+NOT\s+EXISTS\s+)?(\w+)([^,;]*)", re.IGNORECASE)
_ALTERED: Final = re.compile(r"ALTER\s+TABLE\s+(?:ONLY\s+)?(\w+)", re.IGNORECASE)
_RELEASE: Final = re.compile(r"^\d+\.\d+\.\d+$")


def problems(path: Path, known: list[str]) -> list[str]:
    """Return what breaks the rules of `docs/operate/migrations.md`; `known` are the revisions up to this one."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    marks = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found = list(_contracting(tree))
    if marks.get("contract") is True:
        wrong = [] if _RELEASE.match(str(marks.get("unused_since"))) else ["unused_since: name the release, as 1.4.0"]
        if marks.get("serves_from") not in known:
            wrong.append("serves_from: name the oldest revision whose release may serve this schema")
        found = wrong
    elif "serves_from" in marks:
        found.append("serves_from is for a migration with contract = True")
    else:
        found = [f"{one}: do it in a later release, with contract = True" for one in found]
    if not marks.get("safe_index"):
        found += _blocking(tree)
    return found


def _contracting(tree: ast.Module) -> Iterator[str]:
    for name in _operations(tree):
        if name in _OPERATIONS:
            yield f"op.{name}"
    own = {table.lower() for text in _texts(tree) for table in _NEW_TABLE.findall(text)}
    replaced = {name.lower() for text in _texts(tree) for name in _NEW_FUNCTION.findall(text)}
    for text in _texts(tree):
        for statement in filter(None, map(str.strip, _without_comments(text).split(";"))):
            altered = _ALTERED.match(statement)
            if altered and altered[1].lower() in own:
                continue
            if _NEW_TABLE.match(statement):
                continue
            for pattern, why in _CONTRACTS.items():
                if (match := re.search(pattern, statement, re.IGNORECASE | re.DOTALL)) is None:
                    continue
                # A function that is made anew, or one of this migration whose rights are narrowed.
                if any(re.search(rf"\b{name}\b", statement, re.IGNORECASE) for name in replaced):
                    continue
                yield f"`{' '.join(match[0].split())}` {why}"
            for column, rest in _ADDED.findall(statement):
                if re.search(r"\bNOT\s+NULL\b", rest, re.IGNORECASE) and not re.search(
                    r"\bDEFAULT\b", rest, re.IGNORECASE
                ):
                    yield f"`ADD COLUMN {column} NOT NULL` without a default refuses rows that an older release writes"
            for table in _UNIQUE.findall(statement):
                if table.lower() not in own:
                    yield f"a unique index on {table} refuses rows that an older release may write"


def _blocking(tree: ast.Module) -> list[str]:
    own = {table.lower() for text in _texts(tree) for table in _NEW_TABLE.findall(text)}
    return [
        f"an index on {table} stops its writers while it is built: CREATE INDEX CONCURRENTLY in an autocommit_block, "
        "or say in safe_index why that does not matter"
        for text in _texts(tree)
        for concurrently, table in _INDEX.findall(_without_comments(text))
        if not concurrently and table.lower() not in own
    ]


def _without_comments(text: str) -> str:
    return re.sub(r"--[^\n]*", "", text)


def _reached(tree: ast.Module) -> list[ast.AST]:
    """What `upgrade` runs: itself, and the functions and constants of the file that it names, and so on."""
    named: dict[str, ast.AST] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            named[node.name] = node
        elif isinstance(node, ast.Assign):
            named |= {target.id: node.value for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            named[node.target.id] = node.value
    reached, ahead = [], ["upgrade"]
    seen = set()
    while ahead:
        name = ahead.pop()
        if name in seen or name not in named:
            continue
        seen.add(name)
        reached.append(named[name])
        ahead += [node.id for node in ast.walk(named[name]) if isinstance(node, ast.Name)]
    return reached


def _texts(tree: ast.Module) -> Iterator[str]:
    for part in _reached(tree):
        for node in ast.walk(part):
            if isinstance(node, ast.JoinedStr):
                # What is filled in stands as a word of its own.
                yield "".join(str(one.value) if isinstance(one, ast.Constant) else "x" for one in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def _operations(tree: ast.Module) -> Iterator[str]:
    for part in _reached(tree):
        for node in ast.walk(part):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id in ("op", "batch")
            ):
                yield node.attr
