"""The index that serves, whichever that is now: while an embedding model is changed another one takes its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

from service.index.interface import Index, Rebuild, ScopedIndex
from service.scope import Scope


class SwitchedIndex:
    """See `Index`. `serving` tells the index that serves, `filling` the one that will, and `close` closes both."""

    def __init__(
        self, serving: Callable[[], Index], filling: Callable[[], Index | None], close: Callable[[], None]
    ) -> None:
        self._serving = serving
        self._filling = filling
        self._close = close

    @property
    def compacts(self) -> bool:
        """See `Index`."""
        return self._serving().compacts

    @property
    def shared(self) -> bool:
        """See `Index`."""
        return self._serving().shared

    def of(self, scope: Scope) -> ScopedIndex:
        """See `Index`. It stays a part of the index that served when it was asked for."""
        return self._serving().of(scope)

    def rebuild(self) -> AbstractContextManager[Rebuild]:
        """See `Index`."""
        return self._serving().rebuild()

    def is_complete(self) -> bool:
        """See `Index`."""
        return self._serving().is_complete()

    def mark_complete(self) -> None:
        """See `Index`."""
        self._serving().mark_complete()

    def mark_incomplete(self) -> None:
        """See `Index`."""
        self._serving().mark_incomplete()

    def features(self) -> Mapping[str, tuple[str, str | None]]:
        """See `Index`."""
        return self._serving().features()

    def has_leftovers(self) -> bool:
        """See `Index`."""
        return self._serving().has_leftovers()

    def sweep(self) -> None:
        """See `Index`."""
        self._serving().sweep()

    def maintain(self) -> bool:
        """See `Index`."""
        return self._serving().maintain()

    def compact(self) -> bool:
        """See `Index`. What was deleted leaves the one that is being filled too."""
        filling = self._filling()
        done = self._serving().compact()
        return (filling is None or filling.compact()) and done

    def flush(self) -> None:
        """See `Index`."""
        self._serving().flush()

    def count(self) -> int:
        """See `Index`."""
        return self._serving().count()

    def close(self) -> None:
        """See `Index`."""
        self._close()
