"""The tables of docs/compatibility.md, from what the tests hold the clients to; run as a module it prints them."""

from __future__ import annotations

from collections.abc import Iterator

from tests.clients import methods

_CELLS = {
    methods.WORKS: "works",
    methods.NOT_OFFERED: "501",
    methods.NOT_ENABLED: "`not_enabled`",
    methods.NOT_IN_CLIENT: "raises by itself",
    methods.FAILS_AFTER: "done, then fails",
    methods.LOCAL: "no call behind it",
}
_ABSENT = "—"


def of_methods() -> Iterator[list[str]]:
    """The rows of the methods: Python of three generations, and TypeScript where it has the method under its name."""
    newest, *older = methods.PYTHON.values()
    ours = {methods.camel(name): name for name in newest}
    for name, state in newest.items():
        typescript = methods.TYPESCRIPT.get(methods.camel(name))
        states = [state, *(one.get(name) for one in older), typescript]
        yield [f"`{name}`", *(_ABSENT if one is None else _CELLS[one] for one in states)]
    for name, state in methods.TYPESCRIPT.items():
        if name not in ours:
            yield [f"`{name}`", *[_ABSENT] * len(methods.PYTHON), _CELLS[state]]


def of_commands() -> Iterator[list[str]]:
    """The rows of the commands of the command line client."""
    for name, state in methods.CLI.items():
        yield [f"`{name}`", _CELLS[state]]


def of_errors() -> Iterator[list[str]]:
    """The rows of the errors: a status and the class that it becomes."""
    for status, kind in methods.ERRORS.items():
        yield [str(status), f"`{kind}`"]


if __name__ == "__main__":
    for rows in (of_methods(), of_commands(), of_errors()):
        for row in rows:
            print(f"| {' | '.join(row)} |")
        print()
