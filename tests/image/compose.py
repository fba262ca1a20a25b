"""Reads docker-compose.yml: each service with its command, environment, volumes and user, as Compose would start it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from tests.image.dockerfile import REPOSITORY

FILE = REPOSITORY / "docker-compose.yml"
_VARIABLE = re.compile(r"\$\{(?P<name>[A-Z_]+):-(?P<default>[^}]*)\}")


@dataclass(frozen=True)
class Service:
    """A service and what the file says of it."""

    name: str
    told: Mapping[str, Any]

    @property
    def is_ours(self) -> bool:
        """Whether it runs the image that is built here."""
        return "build" in self.told

    @property
    def environment(self) -> dict[str, str]:
        """The variables that have a value; one without is taken from the shell."""
        return {name: value for name, value in self.told.get("environment", {}).items() if value is not None}

    @property
    def mounts(self) -> dict[str, str]:
        """What is mounted, by the path in the container: the name of a volume, or a path from the file on."""
        return {one.split(":")[1]: one.split(":")[0] for one in self.told.get("volumes", [])}

    @property
    def read_only(self) -> set[str]:
        """Where of that the container may not write."""
        return {one.split(":")[1] for one in self.told.get("volumes", []) if one.endswith(":ro")}

    @property
    def tmpfs(self) -> dict[str, str]:
        """Folders in memory, with their options."""
        return {one.partition(":")[0]: one.partition(":")[2] for one in self.told.get("tmpfs", [])}

    @property
    def waits_for(self) -> dict[str, str]:
        """Whom it waits for, and until when."""
        return {name: how["condition"] for name, how in self.told.get("depends_on", {}).items()}


def whole(text: str | None = None) -> dict[str, Any]:
    """Return the file, or a text instead of it, with its variables at their defaults."""
    text = _VARIABLE.sub(lambda found: found["default"], text or FILE.read_text(encoding="utf-8"))
    document: dict[str, Any] = yaml.safe_load(text)
    return document


def services(text: str | None = None) -> dict[str, Service]:
    """Return every service by its name."""
    return {name: Service(name, told) for name, told in whole(text)["services"].items()}
