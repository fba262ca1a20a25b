"""Parameters that several routes of the Platform dialect share."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Header, Path, Query

MOST_PAGES: Final = 1_000_000
DEFAULT_PAGE_SIZE: Final = 100
#: Answers without pages are one page of the largest size.
LARGEST_PAGE: Final = 1000

PageNumber = Annotated[int | None, Query(ge=1, le=MOST_PAGES, description="Which page; 1 by default.")]
PageSize = Annotated[int | None, Query(ge=1, le=LARGEST_PAGE, description="How many on a page; 100 by default.")]
UserId = Annotated[str | None, Query(description="The user.")]
AgentId = Annotated[str | None, Query(description="The agent.")]
AppId = Annotated[str | None, Query(description="The app.")]
RunId = Annotated[str | None, Query(description="The run or session.")]
MemoryId = Annotated[str, Path(description="Id of a memory.")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="The same key with the same body gets the first answer again; after a failure it is a new add.",
    ),
]
