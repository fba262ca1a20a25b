"""The wire shapes of retention rules and runs."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from service.api.lists import Filter

_SPAN = "ISO 8601, such as `P30D`, `P6Y`, `PT12H`."
_EXAMPLE: dict[str, Any] = {
    "name": "summaries-30-days",
    "match": {"metadata": {"kind": "summary"}},
    "action": "delete",
    "age": "P30D",
    "counted_from": "created",
    "priority": 10,
}


class RuleIn(BaseModel):
    """A retention rule. Of the rules that match a memory the one of the highest priority says what becomes of it."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra={"examples": [_EXAMPLE]})

    name: str = Field(description="1 to 64 of a-z, 0-9, `.`, `_`, `-`; unique among the rules that count.")
    match: Filter = Field(None, description="A filter as in a search; everything when left out.")
    action: str = Field("delete", description="`delete`; `hide`, then delete after `grace`; `keep`.")
    counted_from: str = Field("created", description="`created`, `updated` or `used` (when it was last shown).")
    age: str | None = Field(None, description=f"When the action is due. {_SPAN}")
    grace: str | None = Field(None, description=f"From being hidden to being deleted. {_SPAN}")
    minimum: str | None = Field(None, description=f"Nothing deletes it earlier, counted from its storing. {_SPAN}")
    priority: int = Field(0, description="-1000 to 1000; of the same, the first by name.")


class RuleOut(BaseModel):
    """A version of a retention rule, and who made it when."""

    id: str
    version: int
    name: str
    match: dict[str, Any]
    action: str
    counted_from: str
    age: str | None
    grace: str | None
    minimum: str | None
    priority: int
    removed: bool
    changed_by: str | None = Field(description="Id of the key or token; null: the command line.")
    changed_at: str


class RulesOut(BaseModel):
    """The rules that count, those of the highest priority first."""

    count: int
    results: list[RuleOut]


class RunIn(BaseModel):
    """Whether to list only what would be done."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra={"examples": [{"dry_run": True}]})

    dry_run: bool = Field(False, description="`true`: nothing is changed; the answer comes when all is listed.")


class ByRuleOut(BaseModel):
    """How many memories by one rule; `rule_id` null: by their own expiration dates."""

    rule_id: str | None
    action: str
    count: int


class RunOut(BaseModel):
    """A retention run."""

    id: str
    dry_run: bool
    status: str = Field(description="`running` or `done`.")
    now: str = Field(description="The moment by which ages are judged.")
    seen: int
    deleted: int = Field(description="How many were deleted or, in a dry run, would be.")
    hidden: int
    asked_by: str | None
    started_at: str
    ended_at: str | None
    by_rule: list[ByRuleOut] | None = None


class RunsOut(BaseModel):
    """One page of runs, the newest first."""

    count: int
    next: str | None
    previous: str | None
    results: list[RunOut]


class RunItemOut(BaseModel):
    """What was done with one memory or, in a dry run, would be."""

    id: str
    action: str
    rule_id: str | None
    rule_version: int | None
    due_at: str


class RunItemsOut(BaseModel):
    """One page of what a run did or would do, by the ids of the memories."""

    count: int
    next: str | None
    previous: str | None
    results: list[RunItemOut]
