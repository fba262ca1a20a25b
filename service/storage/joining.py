"""The seam through which each memory that is written is looked at, in the transaction that writes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sqlalchemy import Connection

from service.scope import Scope
from service.storage.stored import StoredMemory


class Joins(Protocol):
    """What takes notice of memories. The record calls it, so that no way of writing one passes it by."""

    def written(self, connection: Connection, scope: Scope, memories: Sequence[StoredMemory]) -> None:
        """Take notice of memories that were inserted or changed."""
