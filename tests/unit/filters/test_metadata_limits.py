"""The limits of metadata and the keys it may not have."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings

from service.errors import InvalidInput, ReservedMetadata
from service.filters import metadata_limits
from service.filters.metadata_limits import MAX_BYTES, MAX_LEAVES, RESERVED, validate_metadata
from tests.filters.strategies import ANY_JSON

pytestmark = pytest.mark.unit


def _deep(levels: int) -> Any:
    value: Any = 1
    for level in range(levels):
        value = [value] if level % 2 and level < levels - 1 else {"k": value}
    return value


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"a": [1, 2.5, True, None, "x", {"b": {}}], "": "", "ключ": "🍵"},
        {"k" * 128: 1},
        {str(number): number for number in range(MAX_LEAVES)},
        {"list": list(range(MAX_LEAVES))},
        {"text": "x" * (MAX_BYTES - 11)},
        {"n": 2**63 - 1, "m": -(2**63)},
        {"nested": {"user_id": "free"}},
        _deep(8),
    ],
)
def test_accepted(metadata: Any) -> None:
    assert validate_metadata(metadata) == metadata


def test_none_is_no_metadata() -> None:
    assert validate_metadata(None) == {}


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ([], "must be an object"),
        ("x", "must be an object"),
        ({"k" * 129: 1}, "129 characters"),
        ({str(number): number for number in range(MAX_LEAVES + 1)}, "more than 200 values"),
        ({"list": [[]] * (MAX_LEAVES + 1)}, "more than 200 values"),
        ({"text": "x" * (MAX_BYTES - 10)}, f"{MAX_BYTES + 1} bytes"),
        ({"text": "ж" * (MAX_BYTES // 2)}, "bytes"),
        ({"n": 2**63}, "64 bits"),
        ({"n": float("nan")}, "finite"),
        ({"n": float("-inf")}, "finite"),
        ({"s": "a\x00"}, "null characters"),
        ({"s\x00": 1}, "null characters"),
        ({"s": ["\udc00"]}, "surrogate"),
        ({"s": b"bytes"}, "only JSON values"),
        ({"s": (1, 2)}, "only JSON values"),
        ({"s": {1: 2}}, "keys must be strings"),
        (_deep(9), "at most 8"),
        (_deep(5000), "at most 8"),
    ],
)
def test_refused(metadata: Any, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        validate_metadata(metadata)


def test_what_is_over_the_number_of_values_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[object] = []
    monkeypatch.setattr(metadata_limits, "_check_scalar", lambda value, where: looked_at.append(value))
    monkeypatch.setattr(metadata_limits, "_check_key", lambda key, where: looked_at.append(key))
    for metadata, most in (
        ({"a": [1] * 100_000}, 1),
        ({str(number): 1 for number in range(100_000)}, 0),
        ({"a": [[1] * MAX_LEAVES] * MAX_LEAVES}, 1 + MAX_LEAVES),
    ):
        looked_at.clear()
        with pytest.raises(InvalidInput, match="values"):
            validate_metadata(metadata)
        assert len(looked_at) <= most


@pytest.mark.parametrize("key", RESERVED)
def test_reserved(key: str) -> None:
    with pytest.raises(ReservedMetadata, match=key):
        validate_metadata({"fine": 1, key: "canary"})


@settings(max_examples=300, deadline=None)
@given(ANY_JSON)
def test_any_json_is_accepted_or_refused(metadata: Any) -> None:
    with suppress(InvalidInput):
        assert validate_metadata(metadata) in (metadata, {})
