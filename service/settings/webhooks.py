"""Settings of webhooks: where notifications may go."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from pydantic import Field, IPvAnyNetwork, field_validator

from service.settings.base import Section

_HOST: Final = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?", re.ASCII)


class Webhooks(Section):
    """Notifications of changes to addresses that tenants name. Off without a host: nothing leaves unasked."""

    allowed_hosts: list[str] = Field(
        default_factory=list,
        description="Hosts that may be notified, as `example.com` (at the usual port) or `example.com:8443`. Empty: "
        "off.",
    )
    allowed_networks: list[IPvAnyNetwork] = Field(
        default_factory=list,
        description="Networks, such as `10.1.0.0/16`, that a listed host may be in though they are private; only there "
        "may a URL begin with http://.",
    )
    ca_file: Path | None = Field(
        None, description="PEM file of the authority that signed the receivers' certificates. Not set: the public ones."
    )
    per_tenant: int = Field(50, ge=1, description="Webhooks that one tenant may have; one more is 413.")
    timeout: float = Field(10.0, gt=0, le=60, description="Seconds that one notification may take, all in all.")
    concurrency: int = Field(
        4, ge=1, le=64, description="Notifications that one worker sends at a time, beside its other jobs."
    )
    attempts: int = Field(8, ge=1, le=20, description="Tries of a notification before it is dead.")
    retry_wait: float = Field(
        30.0, ge=0, le=3600, description="Seconds before the second try; doubles with each, up to six hours."
    )
    keep_days: int = Field(30, ge=1, le=365, description="Days that a notification is listed after its end.")

    @field_validator("allowed_hosts")
    @classmethod
    def _are_hosts(cls, value: list[str]) -> list[str]:
        if not all(_HOST.fullmatch(host) for host in value):
            raise ValueError("must be host names or addresses, each with a port if need be, without scheme or wildcard")
        return value
