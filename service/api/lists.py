"""How long the lists of a request's body may be: where the shape is checked, each wrong item costs a kilobyte.

These bounds are above those that the actions have, which say what to do instead.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, TypeAlias

from pydantic import Field

MOST_PARTS: Final = 1_000
#: Of a batch or of a decision, of which a thousand are taken.
MOST_ITEMS: Final = 2_000
MOST_HELD: Final = 20_000

Names: TypeAlias = Annotated[list[str], Field(max_length=2_000)]
"""Texts that name something."""
Filter: TypeAlias = dict[str, Any] | Annotated[list[dict[str, Any]], Field(max_length=2_000)] | None
"""Conditions."""
