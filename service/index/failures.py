"""Turns whatever an engine raises into `IndexUnavailable`, without its words, which may quote what was sent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import IndexUnavailable


@contextmanager
def failures(doing: str, *, what_to_do: str) -> Iterator[None]:
    """Let `IndexUnavailable` pass and replace everything else that is raised inside the block by it."""
    try:
        yield
    except (IndexUnavailable, KeyboardInterrupt, SystemExit):
        raise
    # A panic of the embedded engine is not an Exception.
    except BaseException as error:
        raise IndexUnavailable(f"The index failed ({doing}). The request can be sent again; {what_to_do}") from error


def incomplete() -> IndexUnavailable:
    """Return the error of a search while the index lacks what the record has."""
    return IndexUnavailable("the index is being made again from the record; try again in a minute")
