"""The connectors' part of metadata: what has its shape passes, and what has not is told by its key."""

from __future__ import annotations

from typing import Any

import pytest

from service.errors import InvalidInput
from service.filters.connector_fields import KNOWN_LABELS, MAX_LABEL, MAX_LABELS, MAX_STRING, STRINGS
from service.filters.metadata_limits import validate_metadata

pytestmark = pytest.mark.unit

SECRET = "canary"


@pytest.mark.parametrize("key", STRINGS)
@pytest.mark.parametrize("value", [5, True, ["a"], {"name": SECRET}, "", "  ", SECRET * 100, 1.5])
def test_a_string_that_is_none_is_refused_by_its_key(key: str, value: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        validate_metadata({key: value})
    assert refused.value.detail.startswith(f"metadata.{key}: must be a string of 1 to {MAX_STRING} characters")
    assert SECRET not in refused.value.detail


@pytest.mark.parametrize("value", [SECRET, {"a": SECRET}, 5, True, [[SECRET]] * 51, [SECRET] * (MAX_LABELS + 1)])
def test_labels_that_are_no_list_are_refused(value: Any) -> None:
    with pytest.raises(InvalidInput, match=r"^metadata\.labels: must be a list of at most 50 strings$"):
        validate_metadata({"labels": value})


@pytest.mark.parametrize("label", [5, None, True, "", " ", ["a"], {"a": 1}, SECRET * 17])
def test_a_label_that_is_no_short_string_is_refused_by_its_place(label: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        validate_metadata({"labels": ["fine", label]})
    assert refused.value.detail.startswith("metadata.labels[1]: must be a string of 1 to 100 characters")
    assert SECRET not in refused.value.detail


def test_what_has_its_shape_passes() -> None:
    for metadata in (
        dict.fromkeys(STRINGS, "x" * MAX_STRING),
        dict.fromkeys((*STRINGS, "labels")),
        {"labels": []},
        {"labels": list(KNOWN_LABELS)},
        {"labels": ["x" * MAX_LABEL] * MAX_LABELS},
        {"labels": ["etwas Eigenes", "🍵"], "connector": "Slack", "channel": "#général"},
        # Only at the top level do these names mean something.
        {"ticket": {"connector": 5, "labels": "none"}},
    ):
        assert validate_metadata(metadata) == metadata
