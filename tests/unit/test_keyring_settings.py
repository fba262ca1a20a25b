"""The settings of a keyring in a database: what goes together, and what is refused before anything is opened."""

from __future__ import annotations

import os
from base64 import b64encode
from pathlib import Path

import pytest

from service.errors import ConfigurationError
from service.settings import load_settings
from service.settings.secrets import same_database

pytestmark = pytest.mark.unit

KEY = b64encode(bytes(range(32))).decode()
KEYS = "postgresql://keys:hX2mQ7vN4kT9pW6r@keys.example.com/keys"
RECORD = "postgresql://app:hX2mQ7vN4kT9pW6r@db.example.com/memvault"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (RECORD, "postgres://owner@DB.example.com:5432/memvault?sslmode=require", True),
        (RECORD, "postgresql://db.example.com:5433/memvault", False),
        (RECORD, "postgresql://db.example.com/keys", False),
        (RECORD, "postgresql://keys.example.com/memvault", False),
        (RECORD, "postgresql://other.example.com:6000,db.example.com/memvault", True),
        ("postgresql://a@localhost/memvault", "postgresql://b@127.0.0.1:5432/memvault", True),
        ("postgresql://memvault@db", "postgresql://app@db/memvault", True),
        ("postgresql://a@/memvault?host=/run/pg&port=5433", "postgresql://b@/memvault?port=5433&host=/run/pg", True),
        ("postgresql://a@/memvault?host=/run/pg", "postgresql://a@/memvault?host=/run/other", False),
        ("postgresql://a@[::1]:5432/memvault", "postgresql://a@localhost/memvault", True),
    ],
)
def test_two_urls_of_one_database_are_told(one: str, other: str, same: bool) -> None:
    assert same_database(one, other) is same
    assert same_database(other, one) is same


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"keyring": {"url": KEYS}}, "wrapping_key: is needed with keyring.url"),
        ({"keyring": {"wrapping_key": KEY}}, "keyring.url names none"),
        ({"keyring": {"second_wrapping_key": KEY}}, "keyring.url names none"),
        ({"keyring": {"url": "mysql://keys", "wrapping_key": KEY}}, "must be a postgresql:// URL"),
        (
            {"keyring": {"url": "postgresql://keys:short@keys.example.com/k", "wrapping_key": KEY}},
            "a password that is short",
        ),
        ({"keyring": {"url": KEYS, "wrapping_key": KEY[:-4]}}, "32 random bytes in base64"),
        ({"keyring": {"url": KEYS, "wrapping_key": "not base64 at all"}}, "32 random bytes in base64"),
        ({"keyring": {"url": KEYS, "wrapping_key": b64encode(bytes(32)).decode()}}, "32 random bytes in base64"),
        ({"keyring": {"url": KEYS, "wrapping_key": KEY, "second_wrapping_key": "x"}}, "32 random bytes in base64"),
        ({"database": {"url": RECORD}, "keyring": {"url": RECORD, "wrapping_key": KEY}}, "a database of their own"),
        (
            {
                "database": {"url": RECORD, "owner_url": KEYS.replace("keys:", "owner:")},
                "keyring": {"url": KEYS, "wrapping_key": KEY},
            },
            "a database of their own",
        ),
    ],
)
def test_what_does_not_go_together_is_one_line_without_the_secret(flags: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told) as refused:
        load_settings(environ={}, flags=flags)
    assert "keyring" in refused.value.detail
    assert KEY not in refused.value.detail
    assert "hX2mQ7vN4kT9pW6r" not in refused.value.detail


def test_the_wrapping_key_comes_from_the_environment_and_is_not_shown(tmp_path: Path) -> None:
    key = b64encode(os.urandom(32)).decode() + "\n"
    environ = {"MEMVAULT_KEYRING__URL": KEYS, "MEMVAULT_KEYRING__WRAPPING_KEY": key}
    settings = load_settings(environ=environ, flags={"data_dir": tmp_path})
    assert key.strip() not in repr(settings)
    assert "hX2mQ7vN4kT9pW6r" not in repr(settings)
