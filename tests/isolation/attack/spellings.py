"""What is put into the places of a call: spellings of ids and names, filters, headers, paths, foreign syntax."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

Spelling = Callable[[str], Any]


def wide(text: str) -> str:
    """Full-width forms, which normalise to the plain ones."""
    return "".join(chr(ord(one) + 0xFEE0) if "!" <= one <= "~" else one for one in text)


def cyrillic(text: str) -> str:
    """Letters of another alphabet that look the same."""
    return text.translate(str.maketrans("aeopcxi", "аеорсхі"))


def percent(text: str) -> str:
    """Percent-encoded to the last letter."""
    return "".join(f"%{ord(one):02x}" for one in text)


#: An id, or something that a careless reader takes for it.
OF_ID: Final[tuple[Spelling, ...]] = (
    lambda one: one,
    str.upper,
    lambda one: f"{{{one}}}",
    lambda one: f"urn:uuid:{one}",
    lambda one: one.replace("-", ""),
    lambda one: f" {one}",
    lambda one: f"{one} ",
    lambda one: f"{one}\x00",
    lambda one: f"{one}\n",
    lambda one: f"{one}' OR '1'='1",
    lambda one: f'{one}"}},{{"key":"tenant_id"',
    lambda one: f"{one}%00",
    lambda one: f"{one},{one}",
    lambda one: [one],
    lambda one: {"in": [one]},
    lambda one: f"x/../{one}",
    lambda one: f"{one}/..",
    wide,
    percent,
    lambda one: f"{one[:8]}\u200b{one[8:]}",
    lambda one: f"{one[:4]}%",
    lambda one: "*",
)

#: A name, and what might be read as it.
OF_NAME: Final[tuple[Spelling, ...]] = (
    lambda one: one,
    str.upper,
    lambda one: f" {one}",
    lambda one: f"{one} ",
    lambda one: f"{one}\t",
    lambda one: f"{one}\x00",
    lambda one: f"{one}\x00alice",
    lambda one: f"alice\x00{one}",
    wide,
    cyrillic,
    percent,
    lambda one: f"{one}\u200b",
    lambda one: f"\u202e{one[::-1]}",
    lambda one: f"{one}\u0301",
    lambda one: f"{one[:4]}%",
    lambda one: f"{one[:4]}*",
    lambda one: "*",
    lambda one: "",
    lambda one: f"{one}' OR '1'='1' --",
    lambda one: f"alice' UNION SELECT name FROM subjects WHERE '{one}'='{one}",
    lambda one: f'{one}"}}}},{{"must":[]}}',
    lambda one: f"alice,{one}",
    lambda one: f"alice;{one}",
    lambda one: f"alice/../{one}",
    lambda one: [one],
    lambda one: ["alice", one],
    lambda one: {"in": ["alice", one]},
    lambda one: {"eq": one},
    lambda one: {"ne": "nobody"},
    lambda one: {"$ne": None},
    lambda one: {"exists": True},
    lambda one: {"user_id": one},
    lambda one: json.dumps({"in": [one]}),
    lambda one: "\ud800" + one,
)

#: Filters: the kind of what they aim at, and the filter.
FILTERS: Final[tuple[tuple[str, Spelling], ...]] = (
    ("user", lambda one: {"user_id": one}),
    ("user", lambda one: [{"user_id": one}]),
    ("user", lambda one: {"AND": [{"user_id": one}]}),
    ("user", lambda one: {"AND": [{"user_id": "alice"}, {"user_id": one}]}),
    ("user", lambda one: {"user_id": "alice", "AND": [{"user_id": one}]}),
    ("user", lambda one: {"user_id": "alice", "OR": [{"user_id": one}, {"user_id": "alice"}]}),
    ("user", lambda one: {"OR": [{"user_id": "alice"}, {"user_id": one}]}),
    ("user", lambda one: {"OR": [{"user_id": one}, {"agent_id": "*"}, {"run_id": "*"}]}),
    ("user", lambda one: {"NOT": [{"user_id": "alice"}]}),
    ("user", lambda one: {"NOT": {"user_id": "alice"}}),
    ("user", lambda one: {"NOT": [{"NOT": [{"user_id": one}]}]}),
    ("user", lambda one: {"NOT": [{"user_id": "alice"}, {"user_id": "bob"}]}),
    ("user", lambda one: {"AND": [{"NOT": [{"user_id": "nobody"}]}, {"user_id": one}]}),
    ("user", lambda one: {"AND": [{"OR": [{"AND": [{"OR": [{"user_id": one}]}]}]}]}),
    ("user", lambda one: {"user_id": {"in": [one]}}),
    ("user", lambda one: {"user_id": {"in": ["alice", one]}}),
    ("user", lambda one: {"user_id": {"ne": "alice"}}),
    ("user", lambda one: {"user_id": {"nin": ["alice"]}}),
    ("user", lambda one: {"user_id": {"eq": one}}),
    ("user", lambda one: {"user_id": {"contains": one[:4]}}),
    ("user", lambda one: {"user_id": {"icontains": "z"}}),
    ("user", lambda one: {"user_id": {"gte": "a", "lte": "zzzz"}}),
    ("user", lambda one: {"user_id": {"exists": True}}),
    ("user", lambda one: {"user_id": "*"}),
    ("user", lambda one: {"user_id": ["*", one]}),
    ("user", lambda one: {"user_id": one, "\uff55ser_id": "alice"}),
    ("user", lambda one: {"user_id": wide(one)}),
    ("user", lambda one: {"user_id": cyrillic(one)}),
    ("user", lambda one: {"user_id": f"{one}\x00"}),
    ("user", lambda one: {"user_id\x00": one}),
    ("user", lambda one: {"USER_ID": one}),
    ("user", lambda one: {"or": [{"user_id": one}]}),
    ("user", lambda one: {"$or": [{"user_id": one}]}),
    ("user", lambda one: {"should": [{"key": "user_id", "match": {"value": one}}]}),
    ("user", lambda one: {"must_not": [{"is_empty": {"key": "user_id"}}]}),
    ("user", lambda one: {"user_id": {"$ne": one}}),
    ("user", lambda one: {"metadata": {"user_id": one}}),
    ("user", lambda one: {"metadata": {"topic": "drinks", "NOT": {"user_id": "alice"}}}),
    ("user", lambda one: {"actor_id": one}),
    ("agent", lambda one: {"agent_id": one}),
    ("agent", lambda one: {"OR": [{"agent_id": one}, {"NOT": [{"agent_id": one}]}]}),
    ("app", lambda one: {"app_id": one}),
    ("run", lambda one: {"AND": [{"run_id": one}, {"user_id": "*"}]}),
    ("run", lambda one: {"run_id": {"in": [one, "*"]}}),
    ("memory", lambda one: {"memory_ids": [one]}),
    ("memory", lambda one: {"memory_ids": [one, one]}),
    ("memory", lambda one: {"memory_ids": {"in": [one]}}),
    ("memory", lambda one: {"OR": [{"memory_ids": [one]}, {"user_id": "alice"}]}),
    ("memory", lambda one: {"NOT": [{"memory_ids": [one]}]}),
    ("memory", lambda one: {"id": one}),
    ("memory", lambda one: {"has_id": [one]}),
    ("tenant", lambda one: {"tenant_id": one}),
    ("tenant", lambda one: {"AND": [{"tenant_id": one}]}),
    ("tenant", lambda one: {"OR": [{"tenant_id": one}, {"user_id": "alice"}]}),
    ("tenant", lambda one: {"metadata": {"tenant_id": one}}),
    ("tenant", lambda one: {"org_id": one, "project_id": one}),
    ("tenant", lambda one: {"t": one, "scope": {"tenant_id": one}}),
    ("user", lambda one: {}),
    ("user", lambda one: []),
    ("user", lambda one: {"AND": []}),
    ("user", lambda one: {"OR": []}),
    ("user", lambda one: {"NOT": []}),
    ("user", lambda one: {"AND": [{}]}),
    ("user", lambda one: {"AND": [None]}),
    ("user", lambda one: {"user_id": None}),
    ("user", lambda one: "*"),
    ("user", lambda one: {"created_at": {"gte": "1970-01-01"}}),
    ("user", lambda one: {"text": {"contains": "tea"}}),
    ("user", lambda one: {"keywords": "tea' OR 1=1 --"}),
    ("user", lambda one: {"categories": {"in": ["food", "*"]}}),
    ("user", lambda one: _nested(one, 70)),
    ("user", lambda one: {"OR": [{"user_id": one}] * 300}),
)


def _nested(one: str, levels: int) -> dict[str, Any]:
    made: dict[str, Any] = {"user_id": one}
    for _ in range(levels):
        made = {"AND": [made]}
    return made


#: Headers that some proxy, framework or client gives a meaning: name, kind of what they aim at, value.
HEADERS: Final[tuple[tuple[str, str, Callable[[str], str]], ...]] = (
    *((name, "tenant", str) for name in ("X-Tenant", "X-Tenant-ID", "Tenant-ID", "X-Memvault-Tenant", "X-Org-ID")),
    *((name, "tenant", str) for name in ("Mem0-Org-ID", "Mem0-Project-ID", "X-Project-ID", "X-Account", "X-Scope")),
    *((name, "user", str) for name in ("Mem0-User-ID", "X-User-ID", "X-User", "X-Forwarded-User", "Remote-User")),
    *((name, "user", str) for name in ("X-Remote-User", "X-Authenticated-User", "X-Impersonate-User", "From")),
    ("X-Acting-User", "user", str),
    ("X-Forwarded-For", "tenant", lambda one: "127.0.0.1"),
    ("X-Real-IP", "tenant", lambda one: "127.0.0.1"),
    ("Forwarded", "tenant", lambda one: f"for=127.0.0.1;host={one}"),
    ("X-Forwarded-Host", "tenant", lambda one: f"{one}.example"),
    ("X-Forwarded-Proto", "tenant", lambda one: "https"),
    ("X-Forwarded-Prefix", "tenant", lambda one: f"/{one}"),
    ("X-Original-URL", "memory", lambda one: f"/v1/memories/{one}/"),
    ("X-Rewrite-URL", "memory", lambda one: f"/v1/memories/{one}/"),
    ("X-HTTP-Method-Override", "memory", lambda one: "DELETE"),
    ("X-HTTP-Method", "memory", lambda one: "PUT"),
    ("Cookie", "tenant", lambda one: f"tenant={one}; session={one}"),
    ("Authorization", "tenant", lambda one: f"Basic {one}"),
    ("X-API-Key", "tenant", lambda one: f"mv_{one}"),
    ("X-Purpose", "tenant", lambda one: f"tenant={one}"),
    ("Mcp-Session-Id", "tenant", str),
    ("Range", "tenant", lambda one: "bytes=0-10"),
    ("If-None-Match", "tenant", lambda one: "*"),
    ("traceparent", "tenant", lambda one: f"00-{one.replace('-', '')}-00f067aa0ba902b7-01"),
    ("baggage", "tenant", lambda one: f"tenant_id={one}"),
)

#: Paths that lead to a memory by a detour; `base` is the operation's own path.
PATHS: Final[tuple[Callable[[str, str], str], ...]] = (
    lambda base, one: f"/{base}",
    lambda base, one: f"{base}/",
    lambda base, one: base.rstrip("/"),
    lambda base, one: f"{base}?",
    lambda base, one: f"{base};tenant=x",
    lambda base, one: f"{base}%00",
    lambda base, one: f"{base}%2e%2e/",
    lambda base, one: f"/.{base}",
    lambda base, one: f"/v1/..{base}",
    lambda base, one: f"/%2e%2e{base}",
    lambda base, one: base.replace("/v", "/V", 1),
    lambda base, one: base.replace("/", "//"),
    lambda base, one: base.replace("/", "%2F").replace("%2F", "/", 1),
    lambda base, one: base.replace("/", "\\"),
    lambda base, one: f"{base}../memories/{one}/",
    lambda base, one: f"{base}..%2fmemories%2f{one}%2f",
    lambda base, one: f"{base}%2e%2e/%2e%2e/v1/memories/{one}/",
    lambda base, one: f"{base}..;/memories/{one}/",
    lambda base, one: f"/v1/ping/../memories/{one}/",
    lambda base, one: f"/v1/memories/x/../{one}/",
    lambda base, one: f"/v1/memories/{one}%2F",
    lambda base, one: f"/v1/memories/{one}/%2e/",
    lambda base, one: f"/v1/memories/%252e%252e/{one}/",
    lambda base, one: f"/v1/memories/{percent(one)}/",
    lambda base, one: f"/v1/memories/{quote(wide(one))}/",
    lambda base, one: f"/v1//memories//{one}//",
    lambda base, one: f"/v1/memories/{one}/history/../",
    lambda base, one: f"/v1/memories/{one}#/",
    lambda base, one: f"http://127.0.0.1/v1/memories/{one}/",
)

#: Syntax of the stores and of other interpreters, for every string that is taken.
SYNTAX: Final[tuple[Spelling, ...]] = (
    lambda one: f"' OR tenant_id = '{one}' --",
    lambda one: f"'; SELECT set_config('app.tenant', '{one}', false); --",
    lambda one: f"tea'); DELETE FROM memories WHERE tenant_id = '{one}'; --",
    lambda one: f"%' UNION SELECT content FROM memories WHERE tenant_id='{one}' --",
    lambda one: f'{{"must":[{{"key":"tenant_id","match":{{"value":"{one}"}}}}]}}',
    lambda one: f'{{"filter":{{"should":[{{"has_id":["{one}"]}}]}}}}',
    lambda one: f'"}}]}}, "tenant_id": "{one}", "x": [{{"y": "',
    lambda one: f"$1 $$ :x %(tenant)s {{tenant}} {one}",
    lambda one: f"{{{{7*7}}}}${{{one}}}<%= {one} %>",
    lambda one: f"../../{one}/../../etc/passwd",
    lambda one: f"tea\x00{one}",
    lambda one: f"tea\r\nX-Tenant: {one}",
    lambda one: "\ud800",
    lambda one: f"\u202e{one}\u2066",
    lambda one: {"$gt": "", "tenant_id": one},
    lambda one: [one, {"tenant_id": one}],
)

#: Numbers that are none, or too many.
NUMBERS: Final[tuple[Any, ...]] = (
    0,
    -1,
    2,
    10**6,
    10**9,
    10**30,
    1.5,
    "1 OR 1=1",
    "٣",
    "1e3",
    "*",
    [1],
    {"gt": 0},
    True,
    None,
)
