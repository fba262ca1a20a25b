"""Settings of retention: when the sweep runs and how long what has ended is kept."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from service.settings.base import Cron, Section

#: Days that the reports of retention runs, and by default finished events, are kept.
_DAYS: Final = 90


class Retention(Section):
    """Sweeps that delete by rule and by expiration date."""

    sweep: Cron = Field("17 * * * *", description="When each tenant is swept, as cron says it (UTC).")
    expired_days: int | None = Field(
        30,
        ge=0,
        le=36_500,
        description="Days after its expiration date on which a memory is deleted. `null`: it is hidden for ever.",
    )
    run_days: int = Field(_DAYS, ge=1, le=36_500, description="Days that the reports of runs are kept.")
    event_days: int | None = Field(
        _DAYS,
        ge=1,
        le=36_500,
        description="Days that the events of adds are kept after their end, and the last messages kept for extraction"
        " with them, and the requests of exports. `null`: for ever.",
    )
