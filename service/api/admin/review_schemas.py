"""The wire shapes of reviews: memories in quarantine, and what is decided on them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.api.lists import MOST_ITEMS, Filter
from service.api.platform.schemas import MemoryOut


class ReviewSearchIn(BaseModel):
    """A search in quarantine."""

    model_config = ConfigDict(extra="forbid", strict=True)

    query: str = Field(description="What to look for, by meaning.", examples=["bank account"])
    filters: Filter = Field(None, description="As in a search of memories.")
    top_k: Annotated[int, Field(ge=1, le=1000)] = Field(10, description="How many at most.")


class ReviewIdsIn(BaseModel):
    """Which memories to decide on."""

    model_config = ConfigDict(extra="forbid", strict=True)

    ids: list[str] = Field(
        min_length=1, max_length=MOST_ITEMS, description="Ids as the list of reviews gives them; 1000 at most."
    )


class ReviewOut(MemoryOut):
    """A memory that waits for a reviewer."""

    quarantined_at: str
    score: float | None = Field(None, description="Its likeness to the query, -1 to 1.")


class ReviewsOut(BaseModel):
    """One page of what waits, the longest waiting first."""

    count: int
    next: str | None
    previous: str | None
    results: list[ReviewOut]


class FoundReviewsOut(BaseModel):
    """What waits and is most like a query, the best first."""

    results: list[ReviewOut]


class DecidedOut(BaseModel):
    """What became of one."""

    id: str | None = Field(description="null for what is no id.")
    status: Literal["approved", "known", "rejected", "not_found"] = Field(
        description="`known`: the same memory was there already, and its id is `memory_id`."
    )
    memory_id: str | None = Field(description="The memory that there is now.")


class DecidedAllOut(BaseModel):
    """What became of each."""

    message: str
    results: list[DecidedOut]
