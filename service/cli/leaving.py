"""How a process leaves once everything of it is closed, and what it says when the machine did not let it work."""

from __future__ import annotations

import errno
import logging
import os
import sys
import threading
from typing import Final

#: What the machine answers when something cannot be written any more; the error need not name a file then.
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})


def leave(code: int) -> None:
    """Return; but end the process here, with that exit code, when a thread still runs that nobody waits for any more.

    The interpreter would wait for it or, where it may not, take it away in the middle of what it does: one that is in
    native code by then, as the one is that imports Mem0, ends the process with SIGABRT.
    """
    if threading.active_count() > 1:
        logging.shutdown()
        let_go_of_output()
        os._exit(code)


def let_go_of_output() -> None:
    """Write what is left of the output. What cannot be written is dropped: the interpreter would end in an error."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
        except (AttributeError, ValueError):
            # It was closed before the process began, or by whoever reads it no longer.
            continue


def why_unusable(error: OSError) -> str | None:
    """Return what is wrong with a file or the output, in one line; None for an error that is about neither."""
    name = error.filename
    if name is not None:
        return f"{os.fsdecode(name) if isinstance(name, bytes) else name}: cannot be used ({error.strerror})"
    if error.errno in _FULL:
        return f"a file or the output cannot be written ({error.strerror})"
    return None
