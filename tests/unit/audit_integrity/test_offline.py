"""Verification is pure: an auditor's machine needs no driver, no database and no settings."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.unit


def test_verifying_imports_no_database() -> None:
    code = "import sys, service.audit.verify; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "cryptography" in loaded
    assert not {"sqlalchemy", "sqlmodel", "psycopg", "alembic", "pydantic", "boto3"} & set(loaded)
