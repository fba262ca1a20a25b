"""Keyrings as several processes open them, for the tests of both kinds."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from service import clock
from service.scope import TenantId
from service.settings import Settings, load_settings
from service.storage.keyring import Keyring
from service.storage.tombstones import Tombstones
from service.wiring.keys import DatabaseKeys, open_database_keys

TENANT, SUBJECT = TenantId(UUID(int=1)), UUID(int=2)


Chosen = dict[str, str]


def new_key() -> str:
    """A wrapping key."""
    return b64encode(os.urandom(32)).decode()


def settings_of(chosen: Chosen, folder: Path, **more: str) -> Settings:
    """The settings of an installation with this keyring."""
    return load_settings(environ={}, flags={"data_dir": folder, "keyring": chosen | more})


@dataclass
class House:
    """Opens keyrings on one database, each as another process would."""

    chosen: Chosen
    folder: Path
    stack: ExitStack

    def open(self, **more: str) -> DatabaseKeys:
        """Open it once more."""
        return open_database_keys(settings_of(self.chosen, self.folder, **more), self.stack)

    def rows(self, query: str) -> list[Any]:
        """What its database says."""
        with psycopg.connect(self.chosen["url"]) as connection:
            return connection.execute(query.encode()).fetchall()


def stopped(monkeypatch: pytest.MonkeyPatch) -> float:
    """Let no time pass until the test says so, however busy the machine is."""
    now = clock.monotonic()
    monkeypatch.setattr(clock, "monotonic", lambda: now)
    return now


OpenKeys = Callable[[], tuple[Keyring, Tombstones]]


def database_name(house: House) -> str:
    """The name of its database."""
    return str(house.rows("SELECT current_database()")[0][0])
