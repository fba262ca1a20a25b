"""The command `memvault`: its sub-commands, and how its errors end the process.

What a command needs is imported when that command is asked for: all of it takes seconds of a core, and an agent that
starts `memvault mcp` waits for each of them.
"""

from __future__ import annotations

import errno
import gc
import os
import sys
from importlib import import_module
from types import ModuleType
from typing import Final

import typer

from service.cli.leaving import leave
from service.cli.streams import UNWRITTEN, complain, let_go_of_output, take_streams, why_not
from service.errors import ConfigurationError, MemvaultError

#: The module and function of each command, in the order in which help lists them.
_COMMANDS: Final = {
    "serve": ("serve", "serve"),
    "worker": ("serve", "worker"),
    "migrate": ("migrate", "migrate"),
    "postgres-template": ("serve", "postgres_template"),
    "model": ("model", "model"),
    "doctor": ("doctor", "doctor"),
    "health": ("health", "health"),
    "erase": ("erase", "erase"),
    "verify-receipt": ("erase", "verify_receipt"),
    "mcp": ("mcp", "mcp"),
    "backup": ("backups", "backup"),
    "restore": ("backups", "restore"),
    "consolidate": ("consolidate", "consolidate"),
    "export": ("portability", "export"),
    "import": ("portability", "import_"),
}
#: The modules of each group of commands; the first has its `app`.
_GROUPS: Final = {
    "tenant": ("tenants", "limits", "languages"),
    "key": ("keys",),
    "keyring": ("keyring",),
    "hold": ("holds",),
    "retention": ("retention",),
    "index": ("index",),
    "audit": ("audit", "audit_tail"),
}

#: As a shell tells of a process that Ctrl-C has ended.
_INTERRUPTED: Final = 130
#: What the machine answers when something cannot be written any more; the error need not name a file then.
_UNWRITABLE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EBADF})


def commands(only: str | None = None) -> typer.Typer:
    """Return the application with all its commands or, where one has that name, with one."""
    app = typer.Typer(
        name="memvault",
        help="A self-hosted memory service: Postgres is the record, Qdrant the index, Mem0 the engine.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    # Without a callback, one command alone would be no sub-command.
    app.callback()(_nothing)
    all_of_them = only not in _COMMANDS and only not in _GROUPS
    for name, (module, function) in _COMMANDS.items():
        if all_of_them or name == only:
            app.command(name)(getattr(_module(module), function))
    for name, modules in _GROUPS.items():
        if all_of_them or name == only:
            group, *_ = [_module(module) for module in modules]
            app.add_typer(group.app, name=name)
    return app


def main() -> None:
    """Run a command. A wrong setting is one line and exit code 2; a refusal is one line and exit code 1.

    A file that cannot be used, and an output that cannot be written, are as a wrong setting.
    """
    take_streams()
    # These would lead connections to the embedded Postgres past its private socket, behind the settings' back.
    for variable in ("PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE"):
        os.environ.pop(variable, None)
    try:
        # What is imported stays; looking for garbage among it meanwhile takes a fifth of the time that importing takes.
        gc.disable()
        app = commands(next(iter(sys.argv[1:]), None))
        gc.freeze()
        gc.enable()
        app()
    except ConfigurationError as error:
        _end(error.detail, 2)
    except MemvaultError as error:
        _end(error.detail, 1)
    except OSError as error:
        told = _why_unusable(error)
        if told is None:
            raise
        _end(told, UNWRITTEN)
    except KeyboardInterrupt:
        # While a command was imported; one that runs ends itself, with the same exit code.
        raise SystemExit(_INTERRUPTED) from None
    finally:
        let_go_of_output()


def _nothing() -> None:
    pass


def _module(name: str) -> ModuleType:
    return import_module(f"service.cli.{name}")


def _end(told: str, code: int) -> None:
    complain(told)
    leave(code)
    raise SystemExit(code)


def _why_unusable(error: OSError) -> str | None:
    """Return what is wrong with a file or the output, in one line; None for an error that is about neither."""
    name = error.filename
    if name is not None:
        return f"{os.fsdecode(name) if isinstance(name, bytes) else name}: cannot be used ({error.strerror})"
    if error.errno in _UNWRITABLE:
        return f"a file or the output cannot be written ({why_not(error)})"
    return None
