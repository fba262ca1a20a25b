"""The truth table of the filter language: filters as they come over the wire, and which of the rows each one means.

What is expected was worked out by hand, as row names or as a plain Python condition on the row, never with the
evaluator. The evaluator and every compiler run the same table:

    for case in CASES:
        node = parse_filter(case.filter)
        ...  # the rows that were found == case.expected
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from service.records import Memory
from tests.filters.truth_rows import (
    BY_ID,
    CAFE_NFC,
    CAFE_NFD,
    NFC,
    NFD,
    ROWS,
    SPACE,
    ZURICH_NFC,
    ZURICH_NFD,
    at,
    row_id,
)


@dataclass(frozen=True, slots=True)
class Case:
    """A filter as it comes over the wire and the ids of the rows it means."""

    name: str
    filter: Any
    expected: frozenset[UUID]

    @property
    def names(self) -> set[str]:
        """The names of the expected rows, for a readable failure."""
        return {BY_ID[found] for found in self.expected}


Expected = str | Callable[[Memory], bool]


def _case(name: str, raw: Any, expected: Expected) -> Case:
    if isinstance(expected, str):
        ids = frozenset(ROWS[row].id for row in expected.split())
    else:
        ids = frozenset(memory.id for memory in ROWS.values() if expected(memory))
    return Case(name, raw, ids)


def _metadata(condition: Any) -> dict[str, Any]:
    return {"metadata": condition}


def _but(names: str) -> Callable[[Memory], bool]:
    """Every row except the named ones."""
    left_out = set(names.split())
    assert left_out <= ROWS.keys()
    return lambda row: BY_ID[row.id] not in left_out


_EVERY: Final = _but("")
_WITHOUT_USER: Final = "app_only agent_only run_only nobody"
_NFC_ID, _TEA_ID, _COFFEE_ID = str(row_id("nfc")), str(row_id("tea")), str(row_id("coffee"))

_IDS: Final = (
    _case("nothing asked", {}, _EVERY),
    _case("null root", None, _EVERY),
    _case("user", {"user_id": "alice"}, "tea coffee nested dotted"),
    _case("user eq", {"user_id": {"eq": "alice"}}, "tea coffee nested dotted"),
    _case("user ne", {"user_id": {"ne": "alice"}}, lambda row: row.subjects.user_id != "alice"),
    _case("user in", {"user_id": {"in": ["alice", "carol", "ghost"]}}, "tea coffee nested dotted year_start"),
    _case("user list", {"user_id": ["alice", "carol"]}, "tea coffee nested dotted year_start"),
    _case("user in nothing", {"user_id": {"in": []}}, ""),
    _case("user not in nothing", {"NOT": {"user_id": {"in": []}}}, _EVERY),
    _case("user in with null", {"user_id": ["carol", None]}, "year_start " + _WITHOUT_USER),
    _case("user star", {"user_id": "*"}, lambda row: row.subjects.user_id is not None),
    _case("user eq star", {"user_id": {"eq": "*"}}, lambda row: row.subjects.user_id is not None),
    _case("user ne star", {"user_id": {"ne": "*"}}, _WITHOUT_USER),
    _case("user exists", {"user_id": {"exists": True}}, lambda row: row.subjects.user_id is not None),
    _case("user does not exist", {"user_id": {"exists": False}}, _WITHOUT_USER),
    _case("user null", {"user_id": None}, _WITHOUT_USER),
    _case("user eq null", {"user_id": {"eq": None}}, _WITHOUT_USER),
    _case("user ne null", {"user_id": {"ne": None}}, lambda row: row.subjects.user_id is not None),
    _case("unknown user", {"user_id": "ghost"}, ""),
    _case("unknown user ne", {"user_id": {"ne": "ghost"}}, _EVERY),
    _case("not an unknown user", {"NOT": {"user_id": "ghost"}}, _EVERY),
    _case("unknown users in", {"user_id": {"in": ["ghost", "spook"]}}, ""),
    _case("user case differs", {"user_id": "Alice"}, ""),
    _case("user blank around", {"user_id": " alice"}, ""),
    _case("user of another kind", {"agent_id": "alice"}, ""),
    _case("user empty", {"user_id": ""}, ""),
    _case("user composed", {"user_id": NFC}, "nfc"),
    _case("user decomposed", {"user_id": NFD}, "nfd"),
    _case("agent", {"agent_id": "helper"}, "tea coffee agent_only"),
    _case("agent ne", {"agent_id": {"ne": "helper"}}, _but("tea coffee agent_only")),
    _case("agent set", {"agent_id": "*"}, "tea coffee agent_only year_end"),
    _case("app", {"app_id": "chat"}, "tea next_day app_only"),
    _case("app exists", {"app_id": {"exists": True}}, "tea next_day app_only"),
    _case("app not set", {"app_id": None}, _but("tea next_day app_only")),
    _case("run", {"run_id": "r1"}, "tea run_only"),
    _case("run not set", {"run_id": {"exists": False}}, _but("tea run_only")),
    _case("two operators", {"user_id": {"in": ["alice", "bob"], "ne": "alice"}}, "day_end next_day year_end"),
    _case("actor", {"actor_id": "alice"}, "tea"),
    _case("actor ne", {"actor_id": {"ne": "alice"}}, _but("tea")),
    _case("actor in", {"actor_id": {"in": ["alice", "bob"]}}, "tea coffee"),
    _case("actor list with null", {"actor_id": ["alice", None]}, _but("coffee nfc nfd")),
    _case("actor set", {"actor_id": "*"}, "tea coffee nfc nfd"),
    _case("actor not set", {"actor_id": None}, _but("tea coffee nfc nfd")),
    _case("actor composed", {"actor_id": NFC}, "nfc"),
    _case("ids", {"memory_ids": [_TEA_ID, _NFC_ID]}, "tea nfc"),
    _case("ids in", {"memory_ids": {"in": [_TEA_ID]}}, "tea"),
    _case("ids eq", {"memory_ids": {"eq": _TEA_ID}}, "tea"),
    _case("id plain, upper case", {"memory_ids": _TEA_ID.upper()}, "tea"),
    _case("ids none", {"memory_ids": []}, ""),
    _case("ids malformed", {"memory_ids": ["nonsense", _TEA_ID, "", _TEA_ID[:-1]]}, "tea"),
    _case("ids all malformed", {"memory_ids": {"eq": "' OR 1=1 --"}}, ""),
    _case("not ids malformed", {"NOT": {"memory_ids": ["nonsense"]}}, _EVERY),
    _case("ids unknown", {"memory_ids": [str(SPACE)]}, ""),
    _case("not these ids", {"NOT": {"memory_ids": [_TEA_ID, _COFFEE_ID]}}, _but("tea coffee")),
)

_DAY: Final = "tea coffee day_end"
_TEA_UNIX: Final = 1710057600

_DATES: Final = (
    _case("created on a day", {"created_at": "2024-03-10"}, _DAY),
    _case("created eq day", {"created_at": {"eq": "2024-03-10"}}, _DAY),
    _case("created ne day", {"created_at": {"ne": "2024-03-10"}}, _but(_DAY)),
    _case("created gt day", {"created_at": {"gt": "2024-03-10"}}, lambda row: row.created_at >= at("2024-03-11")),
    _case("created gte day", {"created_at": {"gte": "2024-03-10"}}, lambda row: row.created_at >= at("2024-03-10")),
    _case("created lt day", {"created_at": {"lt": "2024-03-10"}}, "year_end year_start"),
    _case("created lte day", {"created_at": {"lte": "2024-03-10"}}, "year_end year_start " + _DAY),
    _case("created in days", {"created_at": {"in": ["2024-03-10", "2024-01-01"]}}, "year_start " + _DAY),
    _case("created days as a list", {"created_at": ["2024-03-11", "2023-12-31"]}, "next_day year_end"),
    _case("created in nothing", {"created_at": {"in": []}}, ""),
    _case("created in day or moment", {"created_at": ["2024-03-11", "2024-01-01T00:00:00Z"]}, "next_day year_start"),
    _case("created at a moment", {"created_at": "2024-03-10T08:00:00Z"}, "tea"),
    _case("created at a naive moment", {"created_at": "2024-03-10T08:00:00"}, "tea"),
    _case("created at a moment elsewhere", {"created_at": "2024-03-10T10:00:00+02:00"}, "tea"),
    _case("created at a moment, blank for T", {"created_at": "2024-03-10 08:00"}, "tea"),
    _case("created ne moment", {"created_at": {"ne": "2024-03-10T08:00:00Z"}}, _but("tea")),
    _case("created lt next day's start", {"created_at": {"lt": "2024-03-11T00:00:00Z"}}, "year_end year_start " + _DAY),
    _case(
        "created lte next day's start",
        {"created_at": {"lte": "2024-03-11T00:00:00Z"}},
        "year_end year_start next_day " + _DAY,
    ),
    _case("created at the last microsecond", {"created_at": {"eq": "2024-03-10T23:59:59.999999Z"}}, "day_end"),
    _case("created unix", {"created_at": _TEA_UNIX}, "tea"),
    _case("created unix float", {"created_at": {"eq": float(_TEA_UNIX)}}, "tea"),
    _case("created lt unix", {"created_at": {"lt": _TEA_UNIX}}, "coffee year_end year_start"),
    _case("created between", {"created_at": {"gte": "2024-01-01", "lte": "2024-03-10"}}, "year_start " + _DAY),
    _case("created before all", {"created_at": {"lt": "0001-01-01"}}, ""),
    _case("created gt the last day of time", {"created_at": {"gt": "9999-12-31"}}, ""),
    _case("created lte the last day of time", {"created_at": {"lte": "9999-12-31"}}, _EVERY),
    _case("created on the last day of time", {"created_at": "9999-12-31"}, ""),
    _case("timestamp", {"timestamp": {"gte": "2024-03-10", "lt": "2024-03-11"}}, _DAY),
    _case("updated on a day", {"updated_at": "2024-03-10"}, "tea day_end"),
    _case("updated gt day", {"updated_at": {"gt": "2024-03-10", "lte": "2024-03-11"}}, "coffee next_day"),
    _case("not created on a day", {"NOT": {"created_at": "2024-03-10"}}, _but(_DAY)),
    _case("not created after", {"NOT": {"created_at": {"gte": "2024-01-01"}}}, "year_end"),
    _case("expires on", {"expiration_date": "2025-01-01"}, "day_end"),
    _case("expires eq a moment of the day", {"expiration_date": {"eq": "2025-01-01T15:00:00Z"}}, "day_end"),
    _case("expires eq a moment, other day in UTC", {"expiration_date": "2025-01-01T23:00:00-05:00"}, "next_day"),
    _case("expires unix", {"expiration_date": 1735689600}, "day_end"),
    _case("expires ne", {"expiration_date": {"ne": "2025-01-01"}}, _but("day_end")),
    _case("expires gt", {"expiration_date": {"gt": "2024-12-31"}}, "day_end next_day"),
    _case("expires gte", {"expiration_date": {"gte": "2024-12-31"}}, "coffee day_end next_day"),
    _case("expires lt", {"expiration_date": {"lt": "2025-01-01"}}, "coffee expired"),
    _case("expires lte", {"expiration_date": {"lte": "2025-01-01"}}, "coffee expired day_end"),
    _case("not expires lte", {"NOT": {"expiration_date": {"lte": "2025-01-01"}}}, _but("coffee expired day_end")),
    _case("expires in", {"expiration_date": {"in": ["2020-02-29", "2025-01-02"]}}, "expired next_day"),
    _case("expires in or never", {"expiration_date": ["2020-02-29", None]}, _but("coffee day_end next_day")),
    _case("never expires", {"expiration_date": None}, _but("coffee day_end next_day expired")),
    _case("expires some day", {"expiration_date": "*"}, "coffee day_end next_day expired"),
    _case("expires exists", {"expiration_date": {"exists": True}}, "coffee day_end next_day expired"),
)

_TEXTS: Final = (
    _case("text", {"text": "tea"}, "tea"),
    _case("text contains", {"text": {"contains": "Alice"}}, "tea coffee"),
    _case("text contains, case matters", {"text": {"contains": "coffee"}}, ""),
    _case("text icontains", {"text": {"icontains": "coffee"}}, "coffee"),
    _case("text contains nothing", {"text": {"contains": ""}}, _EVERY),
    _case("text eq", {"text": {"eq": "Alice likes green tea"}}, "tea"),
    _case("text eq a part", {"text": {"eq": "Alice"}}, ""),
    _case("text eq empty", {"text": {"eq": ""}}, "empty_text"),
    _case("text ne", {"text": {"ne": "A note"}}, lambda row: row.text != "A note"),
    _case("not text", {"NOT": {"text": "A note"}}, lambda row: "A note" not in row.text),
    _case("text percent is literal", {"text": "100% *"}, "star"),
    _case("text underscore is literal", {"text": {"contains": "n_te"}}, ""),
    _case("text backslash", {"text": "\\ back'"}, "star"),
    _case("text composed", {"text": CAFE_NFC}, "nfc"),
    _case("keywords", {"keywords": "ALICE"}, "tea coffee"),
    _case("keywords contains", {"keywords": {"contains": "ALICE"}}, ""),
    _case("keywords icontains", {"keywords": {"icontains": "TICK of"}}, "day_end next_day"),
    _case("keywords_search", {"keywords_search": "green"}, "tea"),
    _case("keywords full case folding", {"keywords": "STRASSE UND STRASSE"}, "sharp_s"),
    _case("not keywords", {"NOT": {"keywords": "alice"}}, _but("tea coffee")),
)

_WITH_CATEGORY: Final = "tea coffee nfc nfd"
_CATEGORY_CASES: Final = (
    _case("category", {"categories": "food"}, "tea coffee"),
    _case("category eq", {"categories": {"eq": "preferences"}}, "tea"),
    _case("category contains", {"categories": {"contains": "preferences"}}, "tea"),
    _case("category contains is no substring", {"categories": {"contains": "pref"}}, ""),
    _case("category in", {"categories": {"in": ["preferences", CAFE_NFC]}}, "tea nfc"),
    _case("category list", {"categories": ["food", CAFE_NFD]}, "tea coffee nfd"),
    _case("category list with null", {"categories": ["preferences", None]}, _but("coffee nfc nfd")),
    _case("category in nothing", {"categories": []}, ""),
    _case("category ne", {"categories": {"ne": "preferences"}}, _but("tea")),
    _case("category set", {"categories": "*"}, _WITH_CATEGORY),
    _case("category exists", {"categories": {"exists": True}}, _WITH_CATEGORY),
    _case("category none", {"categories": None}, _but(_WITH_CATEGORY)),
    _case("category star in a list is a word", {"categories": ["*"]}, ""),
    _case("not category", {"NOT": {"categories": {"contains": "food"}}}, _but("tea coffee")),
    _case(
        "not a list of categories", {"NOT": [{"categories": "preferences"}, {"categories": CAFE_NFC}]}, _but("tea nfc")
    ),
)

_METADATA: Final = (
    _case("metadata", _metadata({"source": "slack"}), "tea"),
    _case("metadata eq", _metadata({"source": {"eq": "slack"}}), "tea"),
    _case("metadata ne", _metadata({"source": {"ne": "slack"}}), _but("tea")),
    _case("metadata in", _metadata({"source": {"in": ["slack", "email"]}}), "tea coffee"),
    _case("metadata list is in", _metadata({"source": ["Slack", "email"]}), "year_end coffee"),
    _case("metadata in nothing", _metadata({"source": {"in": []}}), ""),
    _case("metadata in with null", _metadata({"source": {"in": ["slack", None]}}), _but("coffee year_end star")),
    _case("metadata star", _metadata({"source": "*"}), "tea coffee year_end star"),
    _case("metadata eq star is literal", _metadata({"source": {"eq": "*"}}), "star"),
    _case("metadata exists", _metadata({"source": {"exists": True}}), "tea coffee year_end star"),
    _case("metadata exists not", _metadata({"source": {"exists": False}}), _but("tea coffee year_end star")),
    _case("metadata null", _metadata({"source": None}), _but("tea coffee year_end star")),
    _case("metadata ne null", _metadata({"source": {"ne": None}}), "tea coffee year_end star"),
    _case("metadata unknown key", _metadata({"nothing": "slack"}), ""),
    _case("metadata unknown key ne", _metadata({"nothing": {"ne": "slack"}}), _EVERY),
    _case("metadata two keys", _metadata({"source": "slack", "score": 5}), "tea"),
    _case("metadata two keys, one not", _metadata({"source": "slack", "score": 2.5}), ""),
    _case("metadata number", _metadata({"score": 5}), "tea year_end"),
    _case("metadata number as float", _metadata({"score": 5.0}), "tea year_end"),
    _case("metadata number as text", _metadata({"score": "5"}), "day_end"),
    _case("metadata fraction", _metadata({"score": 2.5}), "coffee"),
    _case("metadata number in", _metadata({"score": {"in": [5, "5", True]}}), "tea year_end day_end next_day"),
    _case("metadata number gt", _metadata({"score": {"gt": 2.5}}), "tea year_end"),
    _case("metadata number gte", _metadata({"score": {"gte": 2.5}}), "tea year_end coffee"),
    _case("metadata number lt", _metadata({"score": {"lt": 5}}), "coffee"),
    _case("metadata number lte", _metadata({"score": {"lte": 5.0}}), "tea year_end coffee"),
    _case("metadata number between", _metadata({"score": {"gt": 2, "lt": 3}}), "coffee"),
    _case("metadata not number gt", {"NOT": _metadata({"score": {"gt": 2.5}})}, _but("tea year_end")),
    _case("metadata true", _metadata({"flag": True}), "agent_only"),
    _case("metadata false", _metadata({"flag": False}), "app_only"),
    _case("metadata zero is not false", _metadata({"flag": 0}), "run_only"),
    _case("metadata flag set", _metadata({"flag": "*"}), "app_only agent_only run_only nobody"),
    _case("metadata one", _metadata({"v": 1}), "int_one mixed"),
    _case("metadata one as text", _metadata({"v": "1"}), "str_one"),
    _case("metadata one as true", _metadata({"v": True}), "true_one mixed"),
    _case("metadata one ne", _metadata({"v": {"ne": 1}}), _but("int_one mixed")),
    _case("metadata ranges skip booleans", _metadata({"v": {"gte": 0}}), "int_one mixed"),
    _case("metadata ranges keep types apart", _metadata({"v": {"gte": "0"}}), "str_one mixed"),
    _case("metadata list has", _metadata({"tags": "hot"}), "tea"),
    _case("metadata list has, both", _metadata({"tags": "drink"}), "tea coffee"),
    _case("metadata list ne", _metadata({"tags": {"ne": "hot"}}), _but("tea")),
    _case("metadata list in", _metadata({"tags": {"in": ["hot", "cold"]}}), "tea"),
    _case("metadata list contains", _metadata({"tags": {"contains": "hot"}}), "tea"),
    _case("metadata list contains is no substring", _metadata({"tags": {"contains": "ho"}}), ""),
    _case("metadata list icontains", _metadata({"tags": {"icontains": "HOT"}}), "tea"),
    _case("metadata text contains", _metadata({"source": {"contains": "lac"}}), "tea year_end"),
    _case("metadata text contains, case matters", _metadata({"source": {"contains": "S"}}), "year_end"),
    _case("metadata text icontains", _metadata({"source": {"icontains": "SLACK"}}), "tea year_end"),
    _case("metadata not contains", {"NOT": _metadata({"source": {"contains": "lac"}})}, _but("tea year_end")),
    _case("metadata number contains", _metadata({"v": {"contains": 1}}), "mixed"),
    _case("metadata true contained", _metadata({"v": {"contains": True}}), "mixed"),
    _case("metadata text contains, list has no such part", _metadata({"v": {"contains": "a"}}), ""),
    _case("metadata nested", _metadata({"connector": {"name": "jira"}}), "nested"),
    _case("metadata nested operator", _metadata({"connector": {"name": {"contains": "ir"}}}), "nested"),
    _case("metadata nested list", _metadata({"connector": {"ids": 2}}), "nested"),
    _case("metadata nested list range", _metadata({"connector": {"ids": {"gt": 1}}}), "nested"),
    _case("metadata nested list out of range", _metadata({"connector": {"ids": {"gt": 2}}}), ""),
    _case("metadata deep", _metadata({"connector": {"deep": {"level": {"gte": 3}}}}), "nested"),
    _case("metadata nested, two keys", _metadata({"connector": {"name": "jira", "ids": 1}}), "nested"),
    _case("metadata nested, one wrong", _metadata({"connector": {"name": "jira", "ids": 9}}), ""),
    _case("metadata object set", _metadata({"connector": "*"}), "nested"),
    _case("metadata object is no scalar", _metadata({"connector": "jira"}), ""),
    _case("metadata object contains no key", _metadata({"connector": {"contains": "name"}}), ""),
    _case("metadata dotted key is a key", _metadata({"connector.name": "jira"}), "dotted"),
    _case("metadata key with an equal sign", _metadata({"a=b": "c"}), "equals_key"),
    _case("metadata value with an equal sign", _metadata({"a": "b=c"}), "equals_value"),
    _case("metadata empty list is set", _metadata({"list": "*"}), "empties list_of_null"),
    _case("metadata empty object is set", _metadata({"obj": "*"}), "empties list_of_null"),
    _case("metadata null is not set", _metadata({"nil": "*"}), ""),
    _case("metadata null inside is not set", _metadata({"obj": {"inner": {"exists": True}}}), ""),
    _case("metadata null inside", _metadata({"obj": {"inner": None}}), _EVERY),
    _case("metadata objects in a list", _metadata({"items": {"sku": "x2"}}), "objects"),
    _case("metadata objects in a list, each key alone", _metadata({"items": {"sku": "x1", "qty": 7}}), "objects"),
    _case("metadata objects in a list, set", _metadata({"items": {"qty": "*"}}), "objects"),
    _case("metadata objects in a list, range", _metadata({"items": {"qty": {"gt": 6}}}), "objects"),
    _case("metadata element beside objects", _metadata({"items": "loose"}), "objects"),
    _case("metadata lists in a list", _metadata({"grid": 3}), "grid"),
    _case("metadata lists in a list contain", _metadata({"grid": {"contains": 2}}), "grid"),
    _case("metadata lists in a list, no such", _metadata({"grid": 4}), ""),
    _case("metadata Unicode key", _metadata({"ключ": "значение"}), "nfc"),
    _case("metadata emoji", _metadata({"emoji": "🍵"}), "nfc"),
    _case("metadata composed", _metadata({"stadt": ZURICH_NFC}), "nfc"),
    _case("metadata decomposed", _metadata({"stadt": ZURICH_NFD}), "nfd"),
    _case("metadata big whole number", _metadata({"n": 9007199254740993}), "numbers"),
    _case("metadata big whole number, one less", _metadata({"n": 9007199254740992}), ""),
    _case("metadata negative", _metadata({"neg": {"lt": 0}}), "numbers"),
    _case("metadata minus zero", _metadata({"zero": 0}), "numbers"),
    _case("metadata huge", _metadata({"big": 1e300}), "numbers"),
    _case("metadata tenth", _metadata({"tenth": 0.1}), "numbers"),
    _case("metadata day gt", _metadata({"due": {"gt": "2024-05-01"}}), "due_time"),
    _case("metadata day gte moment", _metadata({"due": {"gte": "2024-05-01T00:00:00Z"}}), "due_day due_time"),
    _case("metadata moment lte day", _metadata({"due": {"lte": "2024-05-02"}}), "due_day due_time"),
    _case("metadata moment with an offset", _metadata({"seen": {"lt": "2024-05-01T08:30:00Z"}}), "due_day"),
    _case("metadata moment, offset not text order", _metadata({"seen": {"lte": "2024-05-01T08:00:00Z"}}), "due_day"),
    _case("metadata moment against a word", _metadata({"seen": {"gt": "soom"}}), "due_time"),
    _case("metadata day eq is by text", _metadata({"due": "2024-05-02"}), ""),
    _case("metadata number against a day", _metadata({"due": {"gt": 0}}), ""),
)

_TREES: Final = (
    _case("and", {"AND": [{"user_id": "alice"}, {"agent_id": "helper"}]}, "tea coffee"),
    _case("and of one", {"AND": [{"user_id": "carol"}]}, "year_start"),
    _case("lower case", {"and": [{"user_id": "alice"}, {"not": {"agent_id": "helper"}}]}, "nested dotted"),
    _case("or", {"OR": [{"user_id": "carol"}, {"app_id": "chat"}]}, "year_start tea next_day app_only"),
    _case("or lower case", {"or": [{"user_id": "carol"}, {"run_id": "r1"}]}, "year_start tea run_only"),
    _case("siblings", {"user_id": "alice", "agent_id": "helper"}, "tea coffee"),
    _case("sibling of or", {"user_id": "alice", "OR": [{"agent_id": "helper"}, {"user_id": "bob"}]}, "tea coffee"),
    _case("sibling cannot widen", {"user_id": "alice", "AND": [{"user_id": "bob"}]}, ""),
    _case("or beside or", {"OR": [{"user_id": "alice"}], "or": [{"agent_id": "helper"}]}, "tea coffee"),
    _case("list at the root", [{"user_id": "alice"}, {"agent_id": "helper"}], "tea coffee"),
    _case("not", {"NOT": {"user_id": "*"}}, _WITHOUT_USER),
    _case("not a list is none of them", {"NOT": [{"user_id": "*"}, {"app_id": "chat"}]}, "agent_only run_only nobody"),
    _case("not of siblings", {"NOT": {"user_id": "alice", "agent_id": "helper"}}, _but("tea coffee")),
    _case(
        "not of or",
        {"NOT": {"OR": [{"user_id": "alice"}, {"app_id": "chat"}]}},
        _but("tea coffee nested dotted next_day app_only"),
    ),
    _case("not not", {"NOT": {"NOT": {"user_id": "carol"}}}, "year_start"),
    _case("not not inexact", {"NOT": {"NOT": {"text": "tea"}}}, "tea"),
    _case("not of exact and inexact", {"NOT": {"AND": [{"user_id": "alice"}, {"text": "tea"}]}}, _but("tea")),
    _case(
        "not of exact or inexact",
        {"NOT": {"OR": [{"user_id": "alice"}, {"text": "tick"}]}},
        _but("tea coffee nested dotted day_end next_day"),
    ),
    _case("or of exact and inexact", {"OR": [{"user_id": "carol"}, {"keywords": "coffee"}]}, "year_start coffee"),
    _case("inexact beside ne", {"text": "Alice", "actor_id": {"ne": "bob"}}, "tea"),
    _case("not ne", {"NOT": {"user_id": {"ne": "carol"}}}, "year_start"),
    _case("not metadata ne", {"NOT": _metadata({"score": {"ne": 5}})}, "tea year_end"),
    _case("not text ne", {"NOT": {"text": {"ne": ""}}}, "empty_text"),
    _case(
        "deep",
        {"AND": [{"OR": [{"AND": [{"user_id": "alice"}, {"NOT": {"OR": [{"run_id": "r1"}]}}]}, {"user_id": "carol"}]}]},
        "coffee nested dotted year_start",
    ),
    _case(
        "or of nots",
        {"OR": [{"NOT": {"user_id": "*"}}, {"NOT": {"metadata": {"v": {"exists": False}}}}]},
        _WITHOUT_USER + " str_one int_one true_one mixed",
    ),
    _case(
        "everything at once",
        {
            "user_id": "alice",
            "agent_id": "*",
            "created_at": {"gte": "2024-03-10"},
            "categories": ["food"],
            "metadata": {"source": {"ne": "email"}, "score": {"gte": 3}},
            "keywords": "TEA",
            "NOT": {"expiration_date": "*"},
        },
        "tea",
    ),
)

CASES: Final[tuple[Case, ...]] = (*_IDS, *_DATES, *_TEXTS, *_CATEGORY_CASES, *_METADATA, *_TREES)
