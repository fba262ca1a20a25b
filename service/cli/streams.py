"""The standard streams of a command: where one is missing, in another encoding, full, or read by nobody any more."""

from __future__ import annotations

import errno
import os
import sys
from io import TextIOWrapper
from typing import Final

from service.errors import ConfigurationError

#: The exit code of a command whose output cannot be written.
UNWRITTEN: Final = 2


def take_streams() -> None:
    """Make the streams of this process such that each can be used.

    Under the number of one that was closed the next file or connection would be opened, and be written to by whatever
    prints. One for output takes nothing and says so; one for complaints takes everything.
    """
    for number, way in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free is given.
            os.open(os.devnull, way)
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
    # A terminal that is not in UTF-8 lacks some of what is printed.
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def put(text: str) -> None:
    """Print the result of a command; who does not get it must not take it for told.

    A pipe that nobody reads any more (`| head`) ends the command without a message.

    Raises:
        ConfigurationError: when the output cannot be written.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise SystemExit(UNWRITTEN) from None
    except OSError as error:
        raise ConfigurationError(
            f"standard output cannot be written ({why_not(error)}): what was asked for is done, its result is lost"
        ) from None


def why_not(error: OSError) -> str | None:
    """Return what the machine says of an output."""
    return "it is closed" if error.errno == errno.EBADF else error.strerror


def complain(text: str) -> None:
    """Print a line to standard error; where that cannot be written, the exit code has to do."""
    try:
        print(f"memvault: {text}", file=sys.stderr, flush=True)
    except OSError:
        return


def let_go_of_output() -> None:
    """Write what is left of the output. What cannot be written is dropped: the interpreter would end in an error."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
        except ValueError:
            # It was closed by whoever reads it no longer.
            continue
