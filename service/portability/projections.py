"""Exports in the shape of a JSON schema: by the language model when one is configured, by names of properties else."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from service.portability.exports import Exports, Wanted
from service.portability.projection import project
from service.scope import Caller, Scope


class Projections:
    """Reads exports as the platform's clients ask for them."""

    def __init__(self, exports: Exports) -> None:
        self._exports = exports

    def read(self, caller: Caller, scope: Scope, export_id: UUID | None, wanted: Wanted) -> Any:
        """Return the export with this id, or the newest that was asked for with these filters.

        Raises:
            NotFound: when there is none.
        """
        found = self._exports.find(caller, scope, export_id, wanted)
        return project(found.schema, self._exports.memories(caller, scope, found))
