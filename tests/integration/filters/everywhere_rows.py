"""The memories that every place with filters is asked about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Final

#: "é" as one code point and as "e" with a combining accent: alike to the eye, different to the filter.
NFC, NFD = "jos\u00e9", "jose\u0301"


@dataclass(frozen=True)
class Row:
    """A memory as it is written."""

    name: str
    text: str
    user: str | None = None
    agent: str | None = None
    app: str | None = None
    run: str | None = None
    actor: str | None = None
    categories: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    created: str = "2024-06-01T09:00:00"
    expires: str | None = None

    @property
    def at(self) -> datetime:
        """When it was said."""
        return datetime.fromisoformat(self.created).replace(tzinfo=UTC)

    @property
    def end(self) -> date | None:
        """Its last day."""
        return date.fromisoformat(self.expires) if self.expires else None

    def get(self, *path: str) -> list[Any]:
        """What stands at a path of the metadata: the elements of lists one by one, null left out."""
        found: list[Any] = [self.metadata]
        for key in path:
            found = [one[key] for one in flat(found) if isinstance(one, dict) and key in one]
        return [one for one in found if one is not None]

    def leaves(self, *path: str) -> list[Any]:
        """The single values at a path."""
        return [one for one in flat(self.get(*path)) if not isinstance(one, dict)]

    def is_one(self, wanted: Any, *path: str) -> bool:
        """Whether some value at a path is the wanted one: a boolean is no number, a text is no number."""
        kinds = (str, bool, int | float)
        kind = next(one for one in kinds if isinstance(wanted, one))
        return any(
            value == wanted and isinstance(value, kind) and isinstance(value, bool) is isinstance(wanted, bool)
            for value in self.leaves(*path)
        )

    def numbers(self, *path: str) -> list[float]:
        """The numbers at a path."""
        return [one for one in self.leaves(*path) if isinstance(one, int | float) and not isinstance(one, bool)]

    def strings(self, *path: str) -> list[str]:
        """The texts at a path."""
        return [one for one in self.leaves(*path) if isinstance(one, str)]


def flat(values: list[Any]) -> list[Any]:
    """The elements of lists, one by one."""
    return [inner for one in values for inner in (flat(one) if isinstance(one, list) else [one]) if inner is not None]


ROWS: Final = (
    Row(
        "tea",
        "Alice likes green tea",
        "alice",
        "helper",
        "chat",
        "r1",
        "Alice",
        ("food", "drink"),
        {
            "connector": "slack",
            "channel": "#tea",
            "resource_id": "T-1",
            "created_by": "bot",
            "score": 5,
            "labels": ["preference", "long_term"],
            "ticket": {"id": "T-1", "tags": ["a", "b"], "open": True},
        },
        "2024-03-10T08:00:00",
        "2099-12-31",
    ),
    Row(
        "coffee",
        "Alice hates COFFEE",
        "alice",
        "helper",
        None,
        None,
        "Bob",
        ("food",),
        {
            "connector": "email",
            "channel": "inbox",
            "score": 2.5,
            "labels": ["preference"],
            "due": "2024-05-01",
            "ticket": {"id": "T-2", "tags": [], "open": False},
        },
        "2024-03-10T00:00:00",
        "2098-01-01",
    ),
    Row(
        "escalated",
        "The invoice was wrong for the third time",
        "alice",
        None,
        "crm",
        None,
        None,
        (),
        {"connector": "Slack", "labels": ["escalation", "bug_report"], "score": "5", "due": "2024-05-01T23:59:59Z"},
        "2024-03-10T23:59:59.999999",
    ),
    Row(
        "next_day",
        "First tick of the next day",
        "bob",
        None,
        "chat",
        None,
        "Bob",
        (),
        {"score": True},
        "2024-03-11T00:00:00",
        "2099-01-01",
    ),
    Row(
        "year_end",
        "Last tick of the year",
        "bob",
        "scribe",
        None,
        "r2",
        None,
        ("drink",),
        {"score": 5.0, "connector": None, "labels": None},
        "2023-12-31T23:59:59.999999",
    ),
    Row("app_only", "A note of the app", None, None, "chat", None, None, (), {"flag": False}),
    Row(
        "agent_only",
        "A note of the agent",
        None,
        "helper",
        None,
        None,
        None,
        (),
        {"flag": True, "empty": {}, "none": []},
    ),
    Row("run_only", "A note of the run", None, None, None, "r1", None, (), {"flag": 0}),
    Row(
        "objects",
        "Several things",
        "erin",
        None,
        None,
        None,
        None,
        (),
        {"items": [{"sku": "x1", "qty": 1}, {"sku": "x2", "qty": 7}, "loose"], "grid": [[1, 2], [3]]},
    ),
    Row("star", "100% *literal* _under_ \\ back'slash", "erin", None, None, None, None, ("*",), {"connector": "*"}),
    Row("dotted", "Keys with dots", "erin", None, None, None, None, (), {"ticket.id": "T-1", "a=b": "c", "a": "b=c"}),
    Row(
        "nfc",
        f"A caf\u00e9 of {NFC}",
        NFC,
        None,
        None,
        None,
        NFC,
        ("caf\u00e9",),
        {"stadt": "Z\u00fcrich", "ключ": "🍵"},
    ),
    Row("nfd", f"A cafe\u0301 of {NFD}", NFD, None, None, None, NFD, ("cafe\u0301",), {"stadt": "Zu\u0308rich"}),
    Row("sharp_s", "STRASSE und straße", "frank", None, None, None, None, (), {"stadt": "ZÜRICH"}),
    Row(
        "numbers",
        "Large and small",
        "frank",
        None,
        None,
        None,
        None,
        (),
        {"n": 9007199254740993, "neg": -1, "big": 1e300, "tenth": 0.1, "v": [1, "ab", True]},
    ),
)
