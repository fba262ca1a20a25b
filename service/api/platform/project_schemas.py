"""The wire shapes of a project: the settings that a tenant makes for itself."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

CategoryIn = str | dict[str, str | None]


class ProjectIn(BaseModel):
    """What to change; what is not sent stays, null takes away, and so does an empty text, of instructions. Settings of
    the Platform that do not exist here are ignored with a warning.
    """

    model_config = ConfigDict(extra="ignore", strict=True)

    custom_instructions: str | None = Field(None, description="What the LLM minds when it extracts memories.")
    agent_custom_instructions: str | None = Field(
        None, description="The same for memories of an agent without a user; without it `custom_instructions` holds."
    )
    custom_categories: Annotated[list[CategoryIn], Field(max_length=1_000)] | None = Field(
        None,
        description="The categories that extracted memories are sorted into: names, or names with descriptions.",
        examples=[[{"health": "allergies, sleep, doctors"}, "travel"]],
    )
    review_required: bool | None = Field(
        None, description="Extracted memories wait in quarantine until a reviewer approves them."
    )
    language: str | None = Field(
        None, description="The language of the memories, for keyword search, by its English name."
    )
    multilingual: Any = Field(None, description="Ignored, with a warning.")
    decay: Any = Field(None, description="Ignored, with a warning.")
    memory_depth: Any = Field(None, description="Ignored, with a warning.")
    usecase_setting: Any = Field(None, description="Ignored, with a warning.")
    retrieval_criteria: Any = Field(None, description="Ignored, with a warning.")
    enable_graph: Any = Field(None, description="Ignored, with a warning.")
    version: Any = Field(None, description="Ignored, with a warning.")
    inclusion_prompt: Any = Field(None, description="Ignored, with a warning.")
    exclusion_prompt: Any = Field(None, description="Ignored, with a warning.")
    name: Any = Field(None, description="Ignored, with a warning.")
    description: Any = Field(None, description="Ignored, with a warning.")


class ProjectOut(BaseModel):
    """A project; with `fields` only these."""

    id: str | None = Field(None, description="The tenant.")
    name: str | None = None
    custom_instructions: str | None = None
    agent_custom_instructions: str | None = None
    custom_categories: list[CategoryIn] | None = None
    review_required: bool | None = None
    language: str | None = Field(None, description="The language of the memories, for keyword search.")
    created_at: str | None = None
    updated_at: str | None = None


class ProjectUpdatedOut(BaseModel):
    """What was done."""

    message: str
    warnings: list[str] | None = Field(None, description="What was sent and ignored.")
