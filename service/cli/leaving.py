"""How a process leaves once everything of it is closed."""

from __future__ import annotations

import logging
import os
import threading

from service.cli.streams import let_go_of_output


def leave(code: int) -> None:
    """Return; but end the process here, with that exit code, when a thread still runs that nobody waits for any more.

    The interpreter would wait for it or, where it may not, take it away in the middle of what it does: one that is in
    native code by then, as the one is that imports Mem0, ends the process with SIGABRT.
    """
    if threading.active_count() > 1:
        logging.shutdown()
        let_go_of_output()
        os._exit(code)
