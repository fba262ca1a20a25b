"""How a process leaves once everything of it is closed, and what it says when the machine did not let it work."""

from __future__ import annotations

import errno
import logging
import os
import threading
from typing import Final

from service.cli.streams import let_go_of_output, why_not

#: What the machine answers when something cannot be written any more; the error need not name a file then.
_UNWRITABLE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EBADF})


def leave(code: int) -> None:
    """Return; but end the process here, with that exit code, when a thread still runs that nobody waits for any more.

    The interpreter would wait for it or, where it may not, take it away in the middle of what it does: one that is in
    native code by then, as the one is that imports Mem0, ends the process with SIGABRT.
    """
    if threading.active_count() > 1:
        logging.shutdown()
        let_go_of_output()
        os._exit(code)


def why_unusable(error: OSError) -> str | None:
    """Return what is wrong with a file or the output, in one line; None for an error that is about neither."""
    name = error.filename
    if name is not None:
        return f"{os.fsdecode(name) if isinstance(name, bytes) else name}: cannot be used ({error.strerror})"
    if error.errno in _UNWRITABLE:
        return f"a file or the output cannot be written ({why_not(error)})"
    return None
