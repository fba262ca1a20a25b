"""Wire shapes of exports and imports."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from service.api.lists import Filter
from service.api.platform.schemas import Subjects


class ExportIn(Subjects):
    """What to export: the subjects at the top level whole, or what matches `filters`; neither is the whole tenant."""

    model_config = ConfigDict(populate_by_name=True)

    filters: Filter = Field(None, description="As in a search.")
    wanted_schema: Any = Field(
        None,
        alias="schema",
        description="A JSON schema, as an object or a string: `POST /v1/exports/get/` answers in its shape.",
    )
    export_instructions: str | None = Field(None, max_length=4000, description="For the language model.")


class ExportOut(BaseModel):
    """An export that was asked for."""

    message: str
    id: str = Field(description="Reads the export.", examples=["0190a1b2-3c4d-7e5f-8a9b-0c1d2e3f4a5b"])


class ExportGetIn(Subjects):
    """Which export: by its id, or the newest one with these filters."""

    memory_export_id: str | None = Field(None, description="The `id` of the export.")
    filters: Filter = Field(None, description="Those that it was asked for with.")


class ImportedOut(BaseModel):
    """What an import did."""

    import_id: str = Field(description="In the trail, and the `event_id` of what was imported.")
    dry_run: bool
    imported: int = Field(description="Memories that are new here.")
    known: int = Field(description="Memories whose id was here already; they stay as they are.")
    history: int
    subjects: int
    refused: int
    refusals: list[dict[str, str]] = Field(description="Where and why, the first hundred.")
