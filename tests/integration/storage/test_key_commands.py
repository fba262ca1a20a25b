"""`memvault keyring move` and `keyring rewrap` leave a row in the trail of the service's own tenant, or do nothing."""

from __future__ import annotations

import os
from base64 import b64encode
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
import yaml
from psycopg.rows import dict_row
from sqlalchemy import text
from typer.testing import CliRunner

from service.cli.app import commands
from service.errors import ConfigurationError, Conflict
from service.scope import SYSTEM_TENANT, TenantId
from service.storage.database import Database
from service.storage.keyring import FileKeyring
from service.storage.tombstones import FileTombstones, TombstoneKind
from tests.conftest import Postgres, fresh_database

pytestmark = [pytest.mark.integration, pytest.mark.postgres_suite]

TENANT = TenantId(UUID(int=1))


def run(config: Path, *arguments: str) -> str:
    """Run a command and return its standard output."""
    result = CliRunner().invoke(commands(), [*arguments, "--config", str(config), "--json"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def written(folder: Path, database: Postgres, keyring: dict[str, str]) -> Path:
    """A configuration file."""
    path = folder / "memvault.yaml"
    settings = {"data_dir": str(folder), "database": database.urls, "keyring": keyring}
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def rows(database: Postgres) -> list[dict[str, Any]]:
    """The rows of the service's own tenant, the oldest first."""
    with psycopg.connect(database.admin, row_factory=dict_row) as admin:
        query = "SELECT * FROM audit WHERE tenant_id = %s ORDER BY seq"
        return admin.execute(query, [SYSTEM_TENANT]).fetchall()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A data folder with a keyring of files and a journal."""
    keyring, journal = FileKeyring(tmp_path / "keys"), FileTombstones(tmp_path / "tombstones")
    keyring.create_tenant(TENANT)
    keyring.create_subject(TENANT, UUID(int=2))
    journal.append(TombstoneKind.SUBJECT_ERASED, TENANT, [UUID(int=3)])
    return tmp_path


def test_what_is_done_to_the_keyring_is_told(files: Path, database: Postgres, keyring_settings: dict[str, str]) -> None:
    config = written(files, database, keyring_settings)
    run(config, "keyring", "move")
    run(config, "keyring", "move")
    new, old = b64encode(os.urandom(32)).decode(), keyring_settings["wrapping_key"]
    config = written(files, database, keyring_settings | {"wrapping_key": new, "second_wrapping_key": old})
    run(config, "keyring", "rewrap")
    found = rows(database)
    assert [(row["event"], row["detail"]) for row in found] == [
        ("keyring:moved", {"before": "folder", "after": "database", "keys": 2, "tombstones": 1}),
        ("keyring:moved", {"before": "folder", "after": "database", "keys": 0, "tombstones": 0}),
        ("keyring:rewrapped", {"kind": "database", "keys": 2}),
    ]
    for row in found:
        assert (row["face"], row["client"], row["outcome"], row["principal_id"]) == ("cli", "memvault", "done", None)
    # No key, no URL and no password.
    kept = str(found)
    assert all(secret not in kept for secret in (new, old, keyring_settings["url"], "postgresql:"))


def test_keys_are_not_moved_while_somebody_makes_more(
    files: Path, database: Postgres, keyring_settings: dict[str, str]
) -> None:
    config = written(files, database, keyring_settings)
    served = Database(database.app)
    try:
        with served.tenant_blind() as connection:
            connection.execute(text("SELECT 1"))
        with pytest.raises(Conflict, match=r"1 sessions .* stop them first"):
            run(config, "keyring", "move")
        # Those do not mind how keys are wrapped.
        run(config, "keyring", "rewrap")
    finally:
        served.close()
    assert [row["event"] for row in rows(database)] == ["keyring:rewrapped"]
    with psycopg.connect(keyring_settings["url"]) as connection:
        assert connection.execute("SELECT count(*) FROM keys").fetchone() == (0,)
    run(config, "keyring", "move")


def test_nothing_is_done_that_the_trail_cannot_tell(
    files: Path, postgres: Postgres, keyring_settings: dict[str, str]
) -> None:
    with fresh_database(postgres, empty=True) as without:
        config = written(files, without, keyring_settings)
        for name in ("move", "rewrap"):
            with pytest.raises(ConfigurationError, match="has no audit trail yet"):
                run(config, "keyring", name)
    with psycopg.connect(keyring_settings["url"]) as connection:
        assert connection.execute("SELECT count(*) FROM keys").fetchone() == (0,)
