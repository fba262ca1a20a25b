"""Every operator and nesting of the filter language over the wire: one table, rows of our own, and the same answer from
search, from every list, from exports, holds and retention rules.

What is expected is a plain Python condition on the rows as they were written. Neither the parser, the evaluator nor a
compiler has a part in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, Final

import orjson
import pytest
from fastapi.testclient import TestClient

from service import clock
from service.auth.keys import Grant
from service.filters.ast import EVERYTHING
from service.filters.parse import parse_filter
from service.holds.rules import RuleBody
from service.holds.spans import Span
from service.main import create_app
from service.policy.table import ROLES
from service.portability.exports import Wanted
from service.records import Message, NewMemories, SubjectNames
from service.retention.holds import NewHold
from service.scope import Caller, TenantId
from service.wiring import Services
from tests.conftest import principal_of
from tests.docs.pages import code, table

pytestmark = pytest.mark.integration

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

Meets = Callable[[Row], bool]
#: Name, filter, and which rows it means. `{id:NAME}` stands for the id of a row.
CASES: Final[tuple[tuple[str, Any, Meets], ...]] = (
    ("nothing", {}, lambda r: True),
    # Ids
    ("user", {"user_id": "alice"}, lambda r: r.user == "alice"),
    ("user eq", {"user_id": {"eq": "alice"}}, lambda r: r.user == "alice"),
    ("user ne", {"user_id": {"ne": "alice"}}, lambda r: r.user != "alice"),
    ("user in", {"user_id": {"in": ["alice", "bob", "ghost"]}}, lambda r: r.user in ("alice", "bob")),
    ("user list", {"user_id": ["erin", "ghost"]}, lambda r: r.user == "erin"),
    ("user in nothing", {"user_id": {"in": []}}, lambda r: False),
    ("user is set", {"user_id": "*"}, lambda r: r.user is not None),
    ("user eq star", {"user_id": {"eq": "*"}}, lambda r: r.user is not None),
    ("user exists", {"user_id": {"exists": True}}, lambda r: r.user is not None),
    ("user exists not", {"user_id": {"exists": False}}, lambda r: r.user is None),
    ("user null", {"user_id": None}, lambda r: r.user is None),
    ("user or null", {"user_id": ["bob", None]}, lambda r: r.user in ("bob", None)),
    ("user of nobody", {"user_id": "ghost"}, lambda r: False),
    ("user not of nobody", {"user_id": {"ne": "ghost"}}, lambda r: True),
    ("user in other case", {"user_id": "Alice"}, lambda r: False),
    ("user composed", {"user_id": NFC}, lambda r: r.name == "nfc"),
    ("user decomposed", {"user_id": NFD}, lambda r: r.name == "nfd"),
    ("agent", {"agent_id": "helper"}, lambda r: r.agent == "helper"),
    ("agent ne", {"agent_id": {"ne": "helper"}}, lambda r: r.agent != "helper"),
    ("agent in", {"agent_id": {"in": ["helper", "scribe"]}}, lambda r: r.agent in ("helper", "scribe")),
    ("agent is set", {"agent_id": "*"}, lambda r: r.agent is not None),
    ("agent exists", {"agent_id": {"exists": False}}, lambda r: r.agent is None),
    ("agent eq", {"agent_id": {"eq": "scribe"}}, lambda r: r.agent == "scribe"),
    ("app", {"app_id": {"eq": "chat"}}, lambda r: r.app == "chat"),
    ("app ne", {"app_id": {"ne": "chat"}}, lambda r: r.app != "chat"),
    ("app in", {"app_id": {"in": ["crm"]}}, lambda r: r.app == "crm"),
    ("app is set", {"app_id": "*"}, lambda r: r.app is not None),
    ("app exists, as a plugin of Mem0 sends it", {"app_id": {"exists": True}}, lambda r: r.app is not None),
    ("run", {"run_id": {"eq": "r1"}}, lambda r: r.run == "r1"),
    ("run ne", {"run_id": {"ne": "r1"}}, lambda r: r.run != "r1"),
    ("run in", {"run_id": {"in": ["r2", "r1"]}}, lambda r: r.run in ("r1", "r2")),
    ("run is set", {"run_id": "*"}, lambda r: r.run is not None),
    ("run exists", {"run_id": {"exists": False}}, lambda r: r.run is None),
    ("actor", {"actor_id": {"eq": "Bob"}}, lambda r: r.actor == "Bob"),
    ("actor ne", {"actor_id": {"ne": "Bob"}}, lambda r: r.actor != "Bob"),
    ("actor in", {"actor_id": {"in": ["Alice", NFC]}}, lambda r: r.actor in ("Alice", NFC)),
    ("actor is set", {"actor_id": "*"}, lambda r: r.actor is not None),
    ("actor exists", {"actor_id": {"exists": False}}, lambda r: r.actor is None),
    ("ids in", {"memory_ids": {"in": ["{id:tea}", "{id:nfc}", "nonsense"]}}, lambda r: r.name in ("tea", "nfc")),
    ("ids eq", {"memory_ids": {"eq": "{id:tea}"}}, lambda r: r.name == "tea"),
    ("ids list", {"memory_ids": ["{id:star}"]}, lambda r: r.name == "star"),
    ("ids none", {"memory_ids": []}, lambda r: False),
    # Dates
    ("created on a day", {"created_at": "2024-03-10"}, lambda r: r.at.date() == date(2024, 3, 10)),
    ("created eq", {"created_at": {"eq": "2024-03-10T08:00:00Z"}}, lambda r: r.name == "tea"),
    ("created eq elsewhere", {"created_at": {"eq": "2024-03-10T10:00:00+02:00"}}, lambda r: r.name == "tea"),
    ("created eq unix", {"created_at": 1710057600}, lambda r: r.name == "tea"),
    ("created ne", {"created_at": {"ne": "2024-03-10"}}, lambda r: r.at.date() != date(2024, 3, 10)),
    ("created in", {"created_at": {"in": ["2024-03-11", "2023-12-31"]}}, lambda r: r.name in ("next_day", "year_end")),
    ("created gt", {"created_at": {"gt": "2024-03-10"}}, lambda r: r.at.date() > date(2024, 3, 10)),
    ("created gte", {"created_at": {"gte": "2024-03-10"}}, lambda r: r.at.date() >= date(2024, 3, 10)),
    ("created lt", {"created_at": {"lt": "2024-03-10"}}, lambda r: r.at.date() < date(2024, 3, 10)),
    ("created lte", {"created_at": {"lte": "2024-03-10"}}, lambda r: r.at.date() <= date(2024, 3, 10)),
    (
        "created between",
        {"created_at": {"gte": "2024-01-01", "lt": "2024-06-01"}},
        lambda r: date(2024, 1, 1) <= r.at.date() < date(2024, 6, 1),
    ),
    ("updated eq", {"updated_at": {"eq": "2024-03-11"}}, lambda r: r.at.date() == date(2024, 3, 11)),
    ("updated ne", {"updated_at": {"ne": "2024-03-11"}}, lambda r: r.at.date() != date(2024, 3, 11)),
    ("updated in", {"updated_at": {"in": ["2024-03-11"]}}, lambda r: r.at.date() == date(2024, 3, 11)),
    ("updated gt", {"updated_at": {"gt": "2024-03-11"}}, lambda r: r.at.date() > date(2024, 3, 11)),
    ("updated gte", {"updated_at": {"gte": "2024-03-11"}}, lambda r: r.at.date() >= date(2024, 3, 11)),
    ("updated lt", {"updated_at": {"lt": "2024-03-11"}}, lambda r: r.at.date() < date(2024, 3, 11)),
    ("updated lte", {"updated_at": {"lte": "2024-03-11"}}, lambda r: r.at.date() <= date(2024, 3, 11)),
    ("timestamp eq", {"timestamp": {"eq": "2024-03-11"}}, lambda r: r.at.date() == date(2024, 3, 11)),
    ("timestamp ne", {"timestamp": {"ne": "2024-03-11"}}, lambda r: r.at.date() != date(2024, 3, 11)),
    (
        "timestamp in",
        {"timestamp": {"in": ["2024-03-11", "2024-03-10T08:00:00Z"]}},
        lambda r: r.name in ("tea", "next_day"),
    ),
    ("timestamp gt", {"timestamp": {"gt": "2024-03-11"}}, lambda r: r.at.date() > date(2024, 3, 11)),
    ("timestamp gte", {"timestamp": {"gte": "2024-03-11"}}, lambda r: r.at.date() >= date(2024, 3, 11)),
    (
        "timestamp lt",
        {"timestamp": {"lt": "2024-03-10T08:00:00Z"}},
        lambda r: r.at < datetime(2024, 3, 10, 8, tzinfo=UTC),
    ),
    (
        "timestamp lte",
        {"timestamp": {"lte": "2024-03-10T08:00:00Z"}},
        lambda r: r.at <= datetime(2024, 3, 10, 8, tzinfo=UTC),
    ),
    ("expires eq", {"expiration_date": {"eq": "2099-12-31"}}, lambda r: r.expires == "2099-12-31"),
    ("expires ne", {"expiration_date": {"ne": "2099-12-31"}}, lambda r: r.expires != "2099-12-31"),
    (
        "expires in",
        {"expiration_date": {"in": ["2099-12-31", "2099-01-01"]}},
        lambda r: r.expires in ("2099-12-31", "2099-01-01"),
    ),
    ("expires gt", {"expiration_date": {"gt": "2099-01-01"}}, lambda r: r.end is not None and r.end > date(2099, 1, 1)),
    (
        "expires gte",
        {"expiration_date": {"gte": "2099-01-01"}},
        lambda r: r.end is not None and r.end >= date(2099, 1, 1),
    ),
    ("expires lt", {"expiration_date": {"lt": "2099-01-01"}}, lambda r: r.end is not None and r.end < date(2099, 1, 1)),
    (
        "expires lte",
        {"expiration_date": {"lte": "2099-01-01"}},
        lambda r: r.end is not None and r.end <= date(2099, 1, 1),
    ),
    ("expires some day", {"expiration_date": "*"}, lambda r: r.end is not None),
    ("expires exists", {"expiration_date": {"exists": False}}, lambda r: r.end is None),
    ("expires never", {"expiration_date": None}, lambda r: r.end is None),
    # Texts
    ("text", {"text": "tick of"}, lambda r: "tick of" in r.text),
    ("text eq", {"text": {"eq": "Alice likes green tea"}}, lambda r: r.name == "tea"),
    ("text ne", {"text": {"ne": "Alice likes green tea"}}, lambda r: r.name != "tea"),
    ("text contains", {"text": {"contains": "coffee"}}, lambda r: "coffee" in r.text),
    ("text icontains", {"text": {"icontains": "coffee"}}, lambda r: "coffee" in r.text.lower()),
    ("text with wildcards of SQL", {"text": {"contains": "100% *"}}, lambda r: "100% *" in r.text),
    ("text with one wildcard", {"text": {"contains": "n_te"}}, lambda r: False),
    ("text with a backslash", {"text": "\\ back'"}, lambda r: r.name == "star"),
    ("text composed", {"text": "caf\u00e9"}, lambda r: "caf\u00e9" in r.text),
    ("keywords", {"keywords": "ALICE"}, lambda r: "alice" in r.text.lower()),
    ("keywords contains", {"keywords": {"contains": "ALICE"}}, lambda r: "ALICE" in r.text),
    ("keywords icontains", {"keywords": {"icontains": "STRASSE UND STRASSE"}}, lambda r: r.name == "sharp_s"),
    ("keywords_search", {"keywords_search": "green"}, lambda r: "green" in r.text.lower()),
    ("keywords_search contains", {"keywords_search": {"contains": "Alice"}}, lambda r: "Alice" in r.text),
    ("keywords_search icontains", {"keywords_search": {"icontains": "NOTE"}}, lambda r: "note" in r.text.lower()),
    # Categories
    ("category", {"categories": "food"}, lambda r: "food" in r.categories),
    ("category eq", {"categories": {"eq": "drink"}}, lambda r: "drink" in r.categories),
    ("category contains", {"categories": {"contains": "drink"}}, lambda r: "drink" in r.categories),
    ("category contains is a whole word", {"categories": {"contains": "drin"}}, lambda r: False),
    ("category ne", {"categories": {"ne": "food"}}, lambda r: "food" not in r.categories),
    (
        "category in",
        {"categories": {"in": ["drink", "caf\u00e9"]}},
        lambda r: bool({"drink", "caf\u00e9"} & set(r.categories)),
    ),
    (
        "category list",
        {"categories": ["food", "cafe\u0301"]},
        lambda r: bool({"food", "cafe\u0301"} & set(r.categories)),
    ),
    ("category is set", {"categories": "*"}, lambda r: bool(r.categories)),
    ("category exists", {"categories": {"exists": False}}, lambda r: not r.categories),
    ("category null", {"categories": None}, lambda r: not r.categories),
    ("category that is a star", {"categories": ["*"]}, lambda r: "*" in r.categories),
    # The connectors' keys
    *(
        case
        for key, value in (
            ("connector", "slack"),
            ("channel", "#tea"),
            ("resource_id", "T-1"),
            ("created_by", "bot"),
            ("labels", "escalation"),
        )
        for case in (
            (f"{key}", {"metadata": {key: value}}, lambda r, k=key, v=value: r.is_one(v, k)),
            (f"{key} ne", {"metadata": {key: {"ne": value}}}, lambda r, k=key, v=value: not r.is_one(v, k)),
            (f"{key} in", {"metadata": {key: {"in": [value, "x"]}}}, lambda r, k=key, v=value: r.is_one(v, k)),
            (f"{key} is set", {"metadata": {key: "*"}}, lambda r, k=key: bool(r.get(k))),
            (f"{key} exists not", {"metadata": {key: {"exists": False}}}, lambda r, k=key: not r.get(k)),
            (
                f"{key} contains",
                {"metadata": {key: {"contains": value[1:] if key != "labels" else value}}},
                lambda r, k=key, v=value: r.is_one(v, k) if k == "labels" else any(v[1:] in s for s in r.strings(k)),
            ),
            (
                f"{key} icontains",
                {"metadata": {key: {"icontains": value.upper()}}},
                lambda r, k=key, v=value: (
                    any(v in s.lower() if k != "labels" else v == s.lower() for s in r.strings(k))
                    if k != "resource_id"
                    else any(v.lower() in s.lower() for s in r.strings(k))
                ),
            ),
            (
                f"{key} gte",
                {"metadata": {key: {"gte": value}}},
                lambda r, k=key, v=value: any(s >= v for s in r.strings(k)),
            ),
            (
                f"{key} lt",
                {"metadata": {key: {"lt": value}}},
                lambda r, k=key, v=value: any(s < v for s in r.strings(k)),
            ),
        )
    ),
    (
        "escalations of a user",
        {"user_id": "alice", "metadata": {"labels": "escalation"}},
        lambda r: r.user == "alice" and "escalation" in r.leaves("labels"),
    ),
    # Other metadata
    ("metadata eq", {"metadata": {"score": {"eq": 5}}}, lambda r: r.is_one(5, "score")),
    ("metadata number is no text", {"metadata": {"score": "5"}}, lambda r: r.is_one("5", "score")),
    ("metadata boolean is no number", {"metadata": {"score": True}}, lambda r: r.is_one(True, "score")),
    ("metadata zero is not false", {"metadata": {"flag": 0}}, lambda r: r.name == "run_only"),
    ("metadata false", {"metadata": {"flag": False}}, lambda r: r.name == "app_only"),
    ("metadata ne", {"metadata": {"score": {"ne": 5}}}, lambda r: not r.is_one(5, "score")),
    (
        "metadata in of kinds",
        {"metadata": {"score": {"in": [5, "5", True]}}},
        lambda r: r.is_one(5, "score") or r.is_one("5", "score") or r.is_one(True, "score"),
    ),
    ("metadata gt", {"metadata": {"score": {"gt": 2.5}}}, lambda r: any(n > 2.5 for n in r.numbers("score"))),
    ("metadata gte", {"metadata": {"score": {"gte": 2.5}}}, lambda r: any(n >= 2.5 for n in r.numbers("score"))),
    ("metadata lt", {"metadata": {"score": {"lt": 5}}}, lambda r: any(n < 5 for n in r.numbers("score"))),
    ("metadata lte", {"metadata": {"score": {"lte": 5}}}, lambda r: any(n <= 5 for n in r.numbers("score"))),
    ("metadata range of days", {"metadata": {"due": {"lte": "2024-05-01T12:00:00Z"}}}, lambda r: r.name == "coffee"),
    ("metadata exists", {"metadata": {"score": {"exists": True}}}, lambda r: bool(r.get("score"))),
    ("metadata null in the row is not set", {"metadata": {"connector": None}}, lambda r: not r.get("connector")),
    ("metadata star is set", {"metadata": {"empty": "*"}}, lambda r: r.name == "agent_only"),
    ("metadata empty list is set", {"metadata": {"none": "*"}}, lambda r: r.name == "agent_only"),
    ("metadata eq star is a text", {"metadata": {"connector": {"eq": "*"}}}, lambda r: r.name == "star"),
    ("metadata nested", {"metadata": {"ticket": {"id": "T-1"}}}, lambda r: r.is_one("T-1", "ticket", "id")),
    ("metadata nested is not dotted", {"metadata": {"ticket.id": "T-1"}}, lambda r: r.name == "dotted"),
    (
        "metadata nested ne",
        {"metadata": {"ticket": {"id": {"ne": "T-1"}}}},
        lambda r: not r.is_one("T-1", "ticket", "id"),
    ),
    (
        "metadata nested two",
        {"metadata": {"ticket": {"id": {"in": ["T-1", "T-2"]}, "open": False}}},
        lambda r: r.name == "coffee",
    ),
    (
        "metadata nested exists",
        {"metadata": {"ticket": {"tags": {"exists": True}}}},
        lambda r: r.name in ("tea", "coffee"),
    ),
    ("metadata nested contains", {"metadata": {"ticket": {"tags": {"contains": "a"}}}}, lambda r: r.name == "tea"),
    ("metadata through a list", {"metadata": {"items": {"qty": {"gt": 5}}}}, lambda r: r.name == "objects"),
    ("metadata of a list in a list", {"metadata": {"grid": 3}}, lambda r: r.name == "objects"),
    ("metadata equals signs", {"metadata": {"a": "b=c"}}, lambda r: r.name == "dotted"),
    ("metadata equals signs in a key", {"metadata": {"a=b": "c"}}, lambda r: r.name == "dotted"),
    ("metadata composed", {"metadata": {"stadt": "Z\u00fcrich"}}, lambda r: r.name == "nfc"),
    ("metadata icontains", {"metadata": {"stadt": {"icontains": "z\u00fcr"}}}, lambda r: r.name in ("nfc", "sharp_s")),
    ("metadata key in another script", {"metadata": {"ключ": "🍵"}}, lambda r: r.name == "nfc"),
    ("metadata large number", {"metadata": {"n": 9007199254740993}}, lambda r: r.name == "numbers"),
    ("metadata large number, one less", {"metadata": {"n": 9007199254740992}}, lambda r: False),
    ("metadata mixed list", {"metadata": {"v": {"in": [True]}}}, lambda r: r.name == "numbers"),
    # Nesting
    ("siblings", {"user_id": "alice", "agent_id": "helper", "categories": "drink"}, lambda r: r.name == "tea"),
    ("two operators", {"user_id": {"in": ["alice", "bob"], "ne": "alice"}}, lambda r: r.user == "bob"),
    ("AND", {"AND": [{"user_id": "alice"}, {"app_id": "crm"}]}, lambda r: r.name == "escalated"),
    ("and in lower case", {"and": [{"user_id": "alice"}, {"app_id": "crm"}]}, lambda r: r.name == "escalated"),
    (
        "a list at the root",
        [{"user_id": "alice"}, {"agent_id": "*"}],
        lambda r: r.user == "alice" and r.agent is not None,
    ),
    ("OR", {"OR": [{"user_id": "bob"}, {"app_id": "chat"}]}, lambda r: r.user == "bob" or r.app == "chat"),
    (
        "OR beside a sibling",
        {"user_id": "alice", "OR": [{"app_id": "crm"}, {"run_id": "r1"}]},
        lambda r: r.user == "alice" and (r.app == "crm" or r.run == "r1"),
    ),
    (
        "two ORs under AND",
        {"AND": [{"OR": [{"user_id": "alice"}, {"user_id": "bob"}]}, {"OR": [{"app_id": "*"}, {"run_id": "*"}]}]},
        lambda r: r.user in ("alice", "bob") and (r.app is not None or r.run is not None),
    ),
    ("the widening that Mem0's own search allows", {"user_id": "alice", "AND": [{"user_id": "bob"}]}, lambda r: False),
    ("NOT as an object", {"NOT": {"user_id": "alice"}}, lambda r: r.user != "alice"),
    (
        "NOT as an object of two",
        {"NOT": {"user_id": "alice", "app_id": "chat"}},
        lambda r: not (r.user == "alice" and r.app == "chat"),
    ),
    (
        "NOT as a list",
        {"NOT": [{"user_id": "alice"}, {"app_id": "chat"}]},
        lambda r: not (r.user == "alice" or r.app == "chat"),
    ),
    (
        "NOT of what is not set",
        {"NOT": {"metadata": {"score": {"gt": 1}}}},
        lambda r: not any(n > 1 for n in r.numbers("score")),
    ),
    ("NOT of a text", {"NOT": {"text": {"icontains": "note"}}}, lambda r: "note" not in r.text.lower()),
    ("NOT NOT", {"NOT": {"NOT": {"keywords": "alice"}}}, lambda r: "alice" in r.text.lower()),
    (
        "NOT over OR over AND",
        {"NOT": {"OR": [{"AND": [{"user_id": "alice"}, {"categories": "food"}]}, {"metadata": {"flag": "*"}}]}},
        lambda r: not ((r.user == "alice" and "food" in r.categories) or bool(r.get("flag"))),
    ),
    (
        "index and rows together",
        {
            "AND": [
                {"metadata": {"connector": "*"}},
                {"OR": [{"keywords": "tea"}, {"metadata": {"due": {"gt": "2024-05-01"}}}]},
            ]
        },
        lambda r: bool(r.get("connector")) and ("tea" in r.text.lower() or r.name == "escalated"),
    ),
    (
        "ten deep",
        {"AND": [{"OR": [{"AND": [{"OR": [{"NOT": {"AND": [{"NOT": {"user_id": "erin"}}]}}]}]}]}]},
        lambda r: r.user == "erin",
    ),
)


@pytest.fixture
def ids(services: Services, caller: Caller) -> dict[str, str]:
    """The rows, written; by name the id of each."""
    found = {}
    for row in ROWS:
        new = NewMemories(
            [Message("user", row.text, row.actor)],
            SubjectNames(row.user, row.agent, row.app, row.run),
            metadata=dict(row.metadata),
            infer=False,
            categories=row.categories,
            occurred_at=row.at,
            expires_on=row.end,
        )
        found[row.name] = str(services.adds.add(caller, caller.scope, new).results[0].memory_id)
    return found


def keyholder(services: Services, tenant: TenantId) -> Caller:
    """A caller with a key behind which a person is known, as holds need it."""
    grant = Grant(ROLES["admin"], owner="carla")
    secret = services.installation.keys.mint_for_installation(tenant, grant).secret
    principal = services.installation.keys.find_principal(secret)
    assert principal is not None
    return Caller(principal, request_id="test")


def surfaces(services: Services, caller: Caller, tenant: TenantId) -> Mapping[str, Callable[[Any], set[str]]]:
    """Everything that takes a filter, by name: from a filter as it comes over the wire to the ids that it finds."""
    client = TestClient(create_app(services), raise_server_exceptions=False)
    client.headers["Authorization"] = f"Token {principal_of(services, tenant)[1]}"

    def asked(path: str, **more: Any) -> Callable[[Any], set[str]]:
        def ask(raw: Any) -> set[str]:
            answer = client.post(path, json={"filters": raw, **more})
            assert answer.status_code == 200, (raw, answer.text)
            found = answer.json()
            return {one["id"] for one in (found["results"] if isinstance(found, dict) else found)}

        return ask

    holder = keyholder(services, tenant)

    def held(raw: Any) -> set[str]:
        where = parse_filter(raw)
        if where == EVERYTHING:
            # A hold on everything is refused.
            return asked("/v3/memories/?page_size=1000")(raw)
        new = NewHold(f"case-{clock.new_random_id()}", "the table", where=where)
        hold = services.installation.holds.place(holder, holder.scope, new)
        with services.installation.database.transaction(caller.scope) as connection:
            found = connection.exec_driver_sql(
                "SELECT memory_id FROM hold_members WHERE hold_id = %s", (hold.stored.id,)
            )
            return {str(one) for one in found.scalars()}

    query = {"query": "what is known?", "top_k": 1000, "threshold": 0}
    return {
        "search": asked("/v3/memories/search/", **query),
        "search of older clients": asked("/v2/memories/search/", **query),
        "list": asked("/v3/memories/?page_size=1000"),
        "list of older clients": asked("/v2/memories/"),
        "hold": held,
        "export": lambda raw: {
            str(memory.id) for memory in services.exports.memories(caller, caller.scope, Wanted(filters=raw))
        },
        "export in batches": lambda raw: {
            found["id"]
            for batch in services.exports.read(caller, caller.scope, Wanted(filters=raw))
            for found in map(orjson.loads, batch.lines)
            if found["type"] == "memory"
        },
    }


def filled(raw: Any, ids: Mapping[str, str]) -> Any:
    """A filter with the ids of the rows in it."""
    if isinstance(raw, dict):
        return {key: filled(value, ids) for key, value in raw.items()}
    if isinstance(raw, list):
        return [filled(value, ids) for value in raw]
    return ids[raw[4:-1]] if isinstance(raw, str) and raw.startswith("{id:") else raw


def test_a_filter_gives_the_same_rows_everywhere(
    services: Services, caller: Caller, tenant: TenantId, ids: dict[str, str]
) -> None:
    names = {memory_id: name for name, memory_id in ids.items()}
    asking = surfaces(services, caller, tenant)
    wrong = []
    for name, raw, meets in CASES:
        expected = {row.name for row in ROWS if meets(row)}
        for surface, ask in asking.items():
            found = {names[one] for one in ask(filled(raw, ids))}
            if found != expected:
                wrong.append(
                    f"{surface} / {name}: {sorted(found - expected)} too many, {sorted(expected - found)} missing"
                )
    assert not wrong, "\n".join(wrong)


def test_retention_rules_find_the_same_rows(services: Services, caller: Caller, ids: dict[str, str]) -> None:
    names = {memory_id: name for name, memory_id in ids.items()}
    rules, runs = services.installation.retention_rules, services.installation.retention_runs
    wrong = []
    for number, (name, raw, meets) in enumerate(CASES):
        # All rows are older than a day: what the rule finds due is what its filter means.
        body = RuleBody(f"case-{number}", parse_filter(filled(raw, ids)), age=Span("P1D"))
        rule = rules.create(caller, caller.scope, body)
        run = runs.start(caller, caller.scope, dry=True)
        runs.go_on(caller.scope, run.id)
        planned = runs.items(caller, caller.scope, run.id, page=1, size=1000).items
        rules.remove(caller, caller.scope, rule.id)
        found = {names[str(one.memory_id)] for one in planned if one.rule_id == rule.id}
        expected = {row.name for row in ROWS if meets(row)}
        if found != expected:
            wrong.append(f"{name}: {sorted(found - expected)} too many, {sorted(expected - found)} missing")
    assert not wrong, "\n".join(wrong)


def test_every_key_with_every_operator_is_in_the_table() -> None:
    documented = {
        (key, operator)
        for row in table("docs/api.md", "key")
        for key in code(row["key"])
        for operator in code(row["operators"])
    }
    assert len(documented) > 50
    assert documented - set(_used()) == set()


def test_the_table_tells_rows_apart() -> None:
    """A case that every row meets, or none, is there on purpose only."""
    assert len({name for name, _, _ in CASES}) == len(CASES) > 150
    telling = [name for name, _, meets in CASES if 0 < sum(meets(row) for row in ROWS) < len(ROWS)]
    assert len(telling) > 0.85 * len(CASES)


def _used() -> Iterator[tuple[str, str]]:
    plain = {"text": "contains", "keywords": "icontains", "keywords_search": "icontains"}

    def walk(raw: Any, key: str | None) -> Iterator[tuple[str, str]]:
        if isinstance(raw, list) and key is None:
            for part in raw:
                yield from walk(part, None)
        elif isinstance(raw, dict):
            for name, value in raw.items():
                if name.upper() in ("AND", "OR", "NOT"):
                    yield from walk(value, None)
                elif key is None:
                    yield from walk(value, name)
                elif isinstance(value, dict) or name not in _OPERATORS:
                    yield from walk(value, key)
                else:
                    yield key, name
        elif key is not None:
            yield key, "in" if isinstance(raw, list) else "exists" if raw in ("*", None) else plain.get(key, "eq")

    for _, raw, _ in CASES:
        yield from walk(raw, None)


_OPERATORS: Final = {"eq", "ne", "in", "exists", "contains", "icontains", "gt", "gte", "lt", "lte"}
