"""Settings of what tenants may use, where a tenant has no limits of its own."""

from __future__ import annotations

from pydantic import Field

from service.settings.base import Section


class Quotas(Section):
    """What each tenant may use, unless `memvault tenant limits` says otherwise for it. Not set: no limit."""

    memories: int | None = Field(None, ge=0, description="Memories that a tenant may keep; an add beyond is 413.")
    bytes: int | None = Field(
        None, ge=0, description="Bytes of its memories' sealed content, vectors and history not counted; beyond is 413."
    )
    requests_per_second: int | None = Field(
        None, ge=1, description="Requests a second, over all replicas together; more are 429."
    )
    llm_calls_per_day: int | None = Field(
        None, ge=0, description="Calls of the language model a day (UTC); what is over waits for the next day."
    )
    llm_tokens_per_day: int | None = Field(
        None, ge=0, description="Tokens of the language model a day (UTC); once they are used, adds wait for the next."
    )
    events_waiting: int | None = Field(
        None, ge=0, description="Adds that may wait for the language model at a time; more are 429."
    )
