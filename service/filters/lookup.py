"""What a compiler must ask the record about: which subject a name stands for and which token a text becomes."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from service.scope import SubjectKind


class Lookup(Protocol):
    """The answers of one tenant. Both methods are pure for as long as a filter is compiled."""

    def subject(self, kind: SubjectKind, name: str) -> UUID | None:
        """Return the surrogate id of a subject, or None when the tenant has no such subject."""
        ...

    def token(self, text: str) -> int:
        """Return the tenant's filter token (signed 64-bit) of a text made by `service.filters.tokens`."""
        ...
