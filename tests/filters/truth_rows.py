"""The rows of the truth table of the filter language, and what a store keeps of each: ids, subjects, tokens.

`ROWS` maps names to memories; `LOOKUP` answers for their subjects and tokens; `subject_id` and `row_tokens` give what a
store keeps of a row.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any, Final
from uuid import UUID, uuid5

from service.filters.tokens import Tokenizer
from service.records import Memory, SubjectNames
from service.scope import SubjectKind

SPACE: Final = UUID("7f1c0f54-3d5c-4ad5-9a29-6a2f5f4f2a10")
TOKENIZER: Final = Tokenizer(b"truth-table-token-key-of-32-byte")

#: "é" as one code point and as "e" with a combining accent: alike to the eye, different to the filter.
NFC, NFD = "jos\u00e9", "jose\u0301"
ZURICH_NFC, ZURICH_NFD = "Z\u00fcrich", "Zu\u0308rich"
CAFE_NFC, CAFE_NFD = "caf\u00e9", "cafe\u0301"


def row_id(name: str) -> UUID:
    """Return the id of the row with this name."""
    return uuid5(SPACE, name)


def subject_id(kind: SubjectKind, name: str) -> UUID:
    """Return the surrogate id that the table's tenant gave to a subject."""
    return uuid5(SPACE, f"{kind}:{name}")


def row_tokens(memory: Memory) -> list[int]:
    """Return the filter tokens that a store keeps for a row."""
    return TOKENIZER.row_tokens(memory.metadata, memory.categories, memory.actor)


def at(text: str) -> datetime:
    """Return a moment of the table, in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _row(
    name: str,
    text: str = "A note",
    *,
    user: str | None = None,
    agent: str | None = None,
    app: str | None = None,
    run: str | None = None,
    metadata: dict[str, Any] | None = None,
    categories: tuple[str, ...] = (),
    created: str = "2024-06-01T09:00",
    updated: str = "2024-06-02T09:00",
    expires: str | None = None,
    actor: str | None = None,
) -> tuple[str, Memory]:
    return name, Memory(
        id=row_id(name),
        text=text,
        subjects=SubjectNames(user, agent, app, run),
        metadata=metadata or {},
        categories=categories,
        created_at=at(created),
        updated_at=at(updated),
        expires_on=date.fromisoformat(expires) if expires else None,
        actor=actor,
    )


ROWS: Final[dict[str, Memory]] = dict(
    (
        _row(
            "tea",
            "Alice likes green tea",
            user="alice",
            agent="helper",
            app="chat",
            run="r1",
            metadata={"source": "slack", "score": 5, "tags": ["drink", "hot"]},
            categories=("food", "preferences"),
            created="2024-03-10T08:00",
            updated="2024-03-10T08:00",
            actor="alice",
        ),
        _row(
            "coffee",
            "Alice hates COFFEE",
            user="alice",
            agent="helper",
            metadata={"source": "email", "score": 2.5, "tags": ["drink"]},
            categories=("food",),
            created="2024-03-10T00:00",
            updated="2024-03-11T00:00",
            expires="2024-12-31",
            actor="bob",
        ),
        _row(
            "day_end",
            "Last tick of the day",
            user="bob",
            metadata={"score": "5"},
            created="2024-03-10T23:59:59.999999",
            updated="2024-03-10T23:59:59.999999",
            expires="2025-01-01",
        ),
        _row(
            "next_day",
            "First tick of the next day",
            user="bob",
            app="chat",
            metadata={"score": True},
            created="2024-03-11T00:00",
            updated="2024-03-11T00:00",
            expires="2025-01-02",
        ),
        _row(
            "year_end",
            user="bob",
            agent="scribe",
            metadata={"score": 5.0, "source": "Slack"},
            created="2023-12-31T23:59:59.999999",
        ),
        _row("year_start", user="carol", metadata={"score": None, "source": None}, created="2024-01-01T00:00"),
        _row("app_only", app="chat", metadata={"flag": False}),
        _row("agent_only", agent="helper", metadata={"flag": True}),
        _row("run_only", run="r1", metadata={"flag": 0}),
        _row("nobody", metadata={"flag": "false"}),
        _row("nested", user="alice", metadata={"connector": {"name": "jira", "ids": [1, 2], "deep": {"level": 3}}}),
        _row("dotted", user="alice", metadata={"connector.name": "jira"}),
        _row("equals_key", user="dave", metadata={"a=b": "c"}),
        _row("equals_value", user="dave", metadata={"a": "b=c"}),
        _row("empties", user="dave", metadata={"list": [], "obj": {}, "nil": None}),
        _row("list_of_null", user="dave", metadata={"list": [None], "obj": {"inner": None}}),
        _row("objects", user="erin", metadata={"items": [{"sku": "x1", "qty": 1}, {"sku": "x2", "qty": 7}, "loose"]}),
        _row("grid", user="erin", metadata={"grid": [[1, 2], [3]]}),
        _row("star", "100% *literal* _under_ \\ back'slash", user="erin", metadata={"source": "*"}),
        _row(
            "nfc",
            f"A {CAFE_NFC} in {ZURICH_NFC}",
            user=NFC,
            metadata={"stadt": ZURICH_NFC, "ключ": "значение", "emoji": "🍵"},
            categories=(CAFE_NFC,),
            actor=NFC,
        ),
        _row(
            "nfd",
            f"A {CAFE_NFD} in {ZURICH_NFD}",
            user=NFD,
            metadata={"stadt": ZURICH_NFD},
            categories=(CAFE_NFD,),
            actor=NFD,
        ),
        _row("due_day", user="frank", metadata={"due": "2024-05-01", "seen": "2024-05-01T10:00:00+02:00"}),
        _row("due_time", user="frank", metadata={"due": "2024-05-02T00:00:00Z", "seen": "soon"}),
        _row(
            "numbers",
            user="frank",
            metadata={"n": 9007199254740993, "neg": -1, "zero": -0.0, "big": 1e300, "tenth": 0.1},
        ),
        _row("str_one", user="frank", metadata={"v": "1"}),
        _row("int_one", user="frank", metadata={"v": 1}),
        _row("true_one", user="frank", metadata={"v": True}),
        _row("mixed", user="frank", metadata={"v": [1, "ab", True]}),
        _row("expired", user="frank", expires="2020-02-29"),
        _row("empty_text", "", user="frank"),
        _row("sharp_s", "STRASSE und straße", user="frank"),
    )
)

BY_ID: Final[dict[UUID, str]] = {memory.id: name for name, memory in ROWS.items()}


class TableLookup:
    """Knows the subjects of `ROWS` and no others."""

    def __init__(self) -> None:
        self._subjects = {pair for memory in ROWS.values() for pair in memory.subjects.items()}

    def subject(self, kind: SubjectKind, name: str) -> UUID | None:
        """Return the surrogate id of a subject of the table, or None."""
        return subject_id(kind, name) if (kind, name) in self._subjects else None

    def token(self, text: str) -> int:
        """Return the filter token of a text."""
        return TOKENIZER.token(text)


LOOKUP: Final = TableLookup()
