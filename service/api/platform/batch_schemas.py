"""The wire shapes of batches."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from service.api.lists import MOST_ITEMS
from service.api.platform.schemas import UpdateIn


class _Taken(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)


class NamedMemory(_Taken):
    """A memory by its id."""

    memory_id: str = Field(description="Id of the memory.", examples=["0190a1b2-3c4d-7e5f-8a9b-0c1d2e3f4a5b"])


class NamedUpdate(UpdateIn, NamedMemory):
    """What to change of one memory; what is left out stays."""


class BatchUpdateIn(_Taken):
    """What to change, at most 1000 memories."""

    memories: list[NamedUpdate] = Field(max_length=MOST_ITEMS, description="Each memory once; at most 1000.")


class BatchDeleteIn(_Taken):
    """What to delete, at most 1000 memories."""

    memories: list[NamedMemory] = Field(max_length=MOST_ITEMS, description="Each memory once; at most 1000.")


class BatchItemOut(BaseModel):
    """What became of one item: done wholly or not at all."""

    memory_id: str = Field(description="As it was sent.")
    status: Literal["UPDATED", "DELETED", "FAILED"]
    code: str | None = Field(None, description="Why not: the stable code of an error.")
    detail: str | None = Field(None, description="Why not, in words.")


class BatchOut(BaseModel):
    """How a batch went, item by item, in the order of the request."""

    message: str
    count: int = Field(description="How many were done.")
    results: list[BatchItemOut]
