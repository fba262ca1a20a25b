"""What every section of the settings is made of."""

from __future__ import annotations

import ipaddress
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict


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


SecureUrl = Annotated[str, AfterValidator(secure_url)]


class Section(BaseModel):
    """A part of the settings; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
