"""What every section of the settings is made of."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Final
from urllib.parse import urlsplit

from croniter import CroniterError, croniter
from pydantic import AfterValidator, BaseModel, ConfigDict

#: Columns of a cron expression with one for seconds. A further one would be for years, which end.
_MOST_COLUMNS: Final = 6


def secure_url(url: str) -> str:
    """Return the URL when what is read from it or sent to it cannot be changed on the way.

    Raises:
        ValueError: for anything but `https://…`, or `http://…` on this machine, and for a URL with more than a path.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if not host or parts.username is not None or parts.query or parts.fragment or not url.isascii() or " " in url:
        raise ValueError("must be a URL with a host, without a user name, query or fragment")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise ValueError("must be an https:// URL (http:// only on this machine)")
    return url


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def cron(times: str) -> str:
    """Return a cron expression when the worker can go by it, today and in all years to come.

    Raises:
        ValueError: for one that is none, and for times that never come.
    """
    try:
        croniter(times).get_next()
    except CroniterError:
        usable = False
    else:
        usable = len(times.split()) <= _MOST_COLUMNS
    if not usable:
        raise ValueError(
            "must be times as cron says them, and they must come: `17 * * * *` is 17 minutes past each hour"
        )
    return times


SecureUrl = Annotated[str, AfterValidator(secure_url)]
Cron = Annotated[str, AfterValidator(cron)]


class Section(BaseModel):
    """A part of the settings; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
