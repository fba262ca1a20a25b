"""The connectors' part of metadata: where a memory comes from and what kind of interaction it tells of, by shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from service.errors import InvalidInput

#: Keys of metadata that are one short string: the program a memory came through, the place within it, the thing that
#: it is about there, and who or what made it.
STRINGS: Final = ("connector", "channel", "resource_id", "created_by")
#: The key of metadata that is a list of short strings.
LABELS: Final = "labels"
MAX_STRING: Final = 255
MAX_LABEL: Final = 100
MAX_LABELS: Final = 50

#: The label that every summary of an interaction gets.
INTERACTION_SUMMARY: Final = "interaction_summary"
#: Labels with an agreed meaning. Others are as good; these are what several connectors can understand each other by.
KNOWN_LABELS: Final = (
    "bug_report",
    "feature_request",
    "preference",
    "escalation",
    "decision",
    "summary",
    INTERACTION_SUMMARY,
    "long_term",
    "short_term",
)


def check_connector_fields(metadata: Mapping[str, Any], *, where: str = "metadata") -> None:
    """Return if the connectors' keys, where they are set, have their shape; null is "not set".

    Raises:
        InvalidInput: naming the key and what it takes, never the value.
    """
    for key in STRINGS:
        if metadata.get(key) is not None and not _is_short(metadata[key], MAX_STRING):
            raise InvalidInput(f"{where}.{key}: must be a string of 1 to {MAX_STRING} characters, not only of spaces")
    labels = metadata.get(LABELS)
    if labels is None:
        return
    if not isinstance(labels, list) or len(labels) > MAX_LABELS:
        raise InvalidInput(f"{where}.{LABELS}: must be a list of at most {MAX_LABELS} strings")
    for number, label in enumerate(labels):
        if not _is_short(label, MAX_LABEL):
            raise InvalidInput(
                f"{where}.{LABELS}[{number}]: must be a string of 1 to {MAX_LABEL} characters, not only of spaces"
            )


def _is_short(value: object, longest: int) -> bool:
    return isinstance(value, str) and len(value) <= longest and bool(value.strip())
