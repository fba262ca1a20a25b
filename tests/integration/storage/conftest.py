"""Fixtures of the tests of stores: a keyring in a database, and one of each kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from service.storage.keyring import Keyring
from service.storage.tombstones import Tombstones
from service.wiring.keys import open_keys
from tests.integration.storage.keyrings import Chosen, House, settings_of


@pytest.fixture
def house(keyring_settings: Chosen, tmp_path: Path) -> Iterator[House]:
    """A keyring in a database."""
    with ExitStack() as stack:
        yield House(keyring_settings, tmp_path, stack)


@pytest.fixture(params=["folder", "database"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], tuple[Keyring, Tombstones]]]:
    """Opens one and the same keyring, as each of several processes would."""
    chosen = request.getfixturevalue("keyring_settings") if request.param == "database" else {}
    with ExitStack() as stack:
        yield lambda: open_keys(settings_of(chosen, tmp_path), stack)
