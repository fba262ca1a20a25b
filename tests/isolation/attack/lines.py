"""Where the attack suite finds its way in: one line for each route and each tool, and the table of what fields hold.

Adding a route or a tool: add its line to `ROUTES` or `TOOLS`. Most are `Line()`: parameters and body are read from the
OpenAPI document (from the input schema for a tool), required fields are filled by themselves, and the names in `HOLDS`
say which fields hold ids, names and filters. What more a line can say:

* `body`, `query`, `path`: what a call needs to be valid, laid over what was derived. "<memory>" stands for the id of a
  memory of the attacker's own, likewise every other kind in `HOLDS`.
* `holds`: what a field holds where its name alone does not say it.
* `either`: fields of the body of which a call takes just one.

A field whose name ends in `id` or `ids` and is not in `HOLDS` fails the tests: add it there, with its kind. A kind of
thing that is new (a hold, an export) needs one maker in `scene.py`, which makes such a thing and returns its id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final


@dataclass(frozen=True)
class Line:
    """How to make one valid call of a route or a tool."""

    body: Mapping[str, Any] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    path: Mapping[str, str] = field(default_factory=dict)
    holds: Mapping[str, str] = field(default_factory=dict)
    either: tuple[str, ...] = ()


#: What fields of these names hold, wherever they stand.
HOLDS: Final[dict[str, str]] = {
    "memory_id": "memory",
    "memory_ids": "memory",
    "event_id": "event",
    "review_id": "review",
    "ids": "review",
    "job_id": "job",
    "key_id": "key",
    "principal_id": "key",
    "subject_id": "subject",
    "request_id": "request",
    "audit_id": "audit",
    "erasure_id": "erasure",
    "hold_id": "hold",
    "identity_id": "identity",
    "webhook_id": "webhook",
    "rule_id": "rule",
    "retention_run_id": "sweep",
    "org_id": "tenant",
    "project_id": "tenant",
    "export_id": "export",
    "memory_export_id": "export",
    "user_id": "user",
    "users": "user",
    "agent_id": "agent",
    "app_id": "app",
    "run_id": "run",
    "filters": "filters",
    "cursor": "cursor",
    "Idempotency-Key": "idempotency",
    "page": "number",
    "page_size": "number",
    "size": "number",
    "limit": "number",
    "top_k": "number",
}

_OLD: Final = {"event": "memory:added", "order": "oldest"}
_ADD: Final = {"messages": [{"role": "user", "content": "<words>"}], "user_id": "alice", "infer": False}
_SUBJECTS: Final = ("user_id", "agent_id", "app_id", "run_id")
_PROJECTS: Final = "/api/v1/orgs/organizations/{org_id}/projects/"
_PROJECT: Final = _PROJECTS + "{project_id}/"
_HOOKS: Final = "/api/v1/webhooks/projects/{project_id}/"
#: An address that the service under attack may notify; there is no such host.
HOOK: Final = "https://hook.example/"
_FAR: Final = "2099-01-01T00:00:00Z"

ROUTES: Final[dict[tuple[str, str], Line]] = {
    ("GET", "/v1/ping/"): Line(),
    ("POST", "/v3/memories/add/"): Line(_ADD),
    ("POST", "/v3/memories/search/"): Line({"query": "tea"}),
    ("POST", "/v3/memories/"): Line(),
    ("GET", "/v1/memories/{memory_id}/"): Line(),
    ("PUT", "/v1/memories/{memory_id}/"): Line({"text": "Likes coffee"}),
    ("DELETE", "/v1/memories/{memory_id}/"): Line(),
    ("GET", "/v1/memories/{memory_id}/history/"): Line(),
    ("DELETE", "/v1/memories/"): Line(query={"user_id": "alice", "run_id": "<run>"}),
    ("GET", "/v1/entities/"): Line(),
    ("DELETE", "/v2/entities/{entity_type}/{name:path}/"): Line(
        path={"entity_type": "run", "name": "<run>"}, holds={"name": "run"}
    ),
    ("DELETE", "/v1/entities/{entity_type}/{name:path}/"): Line(
        path={"entity_type": "run", "name": "<run>"}, holds={"name": "run"}
    ),
    ("GET", "/v1/events/"): Line(),
    ("GET", "/v1/event/{event_id}/"): Line(),
    ("POST", "/v1/memories/"): Line(_ADD),
    ("GET", "/v1/memories/"): Line(),
    ("POST", "/v2/memories/"): Line(),
    ("POST", "/v2/memories/search/"): Line({"query": "tea"}),
    ("POST", "/v1/memories/search/"): Line({"query": "tea"}),
    ("GET", "/v1/keys/"): Line(),
    ("POST", "/v1/keys/"): Line({"permissions": ["memory:read"], "users": ["alice"], "expires_in": 1}),
    ("DELETE", "/v1/keys/{key_id}/"): Line(),
    ("PATCH", "/v1/keys/{key_id}/"): Line({"permissions": ["memory:read"]}),
    ("POST", "/v1/keys/{key_id}/rotate/"): Line({"overlap": 60}),
    ("GET", "/v1/audit/"): Line(query=_OLD),
    ("GET", "/v1/audit/export/"): Line(query={"event": "memory:added"}),
    ("GET", "/v1/audit/known/"): Line(query={"user_id": "alice", "at": _FAR}),
    ("POST", "/v1/audit/match/"): Line({"value": "tea", "user_id": "alice"}),
    ("POST", "/v1/erasures/"): Line(
        {"run_id": "<run>"}, holds={"connector": "connector"}, either=(*_SUBJECTS, "connector")
    ),
    ("GET", "/v1/erasures/"): Line(),
    ("GET", "/v1/erasures/{erasure_id}/"): Line(),
    ("DELETE", "/v1/connectors/{name}/"): Line(holds={"name": "connector"}),
    ("POST", "/v1/holds/"): Line(
        {"name": "<slug>", "reason": "why", "run_id": "<run>"},
        holds={"name": "slug"},
        either=(*_SUBJECTS, "memory_ids", "filters"),
    ),
    ("GET", "/v1/holds/"): Line(),
    ("GET", "/v1/holds/{hold_id}/"): Line(),
    ("GET", "/v1/holds/{hold_id}/members/"): Line(),
    ("POST", "/v1/holds/{hold_id}/release/"): Line({"reason": "why"}),
    ("POST", "/v1/retention/rules/"): Line(
        {"name": "<slug>", "age": "P30D"}, holds={"name": "slug", "match": "filters"}
    ),
    ("GET", "/v1/retention/rules/"): Line(),
    ("GET", "/v1/retention/rules/{rule_id}/"): Line(),
    ("PUT", "/v1/retention/rules/{rule_id}/"): Line(
        {"name": "<slug>", "age": "P30D"}, holds={"name": "slug", "match": "filters"}
    ),
    ("DELETE", "/v1/retention/rules/{rule_id}/"): Line(),
    ("POST", "/v1/retention/runs/"): Line({"dry_run": True}),
    ("GET", "/v1/retention/runs/"): Line(),
    ("GET", "/v1/retention/runs/{retention_run_id}/"): Line(),
    ("GET", "/v1/retention/runs/{retention_run_id}/items/"): Line(),
    ("POST", "/v1/exports/"): Line({"run_id": "<run>"}),
    ("POST", "/v1/exports/get/"): Line({"memory_export_id": "<export>"}),
    ("GET", "/v1/exports/{export_id}/download/"): Line(holds={"after": "place"}),
    ("POST", "/v1/imports/"): Line(),
    ("GET", _PROJECT): Line(),
    ("PATCH", _PROJECT): Line({"custom_instructions": "Mind tea"}),
    ("GET", "/v1/reviews/"): Line(),
    ("POST", "/v1/reviews/search/"): Line({"query": "tea"}),
    ("GET", "/v1/reviews/{review_id}/"): Line(),
    ("POST", "/v1/reviews/{review_id}/approve/"): Line(),
    ("POST", "/v1/reviews/{review_id}/reject/"): Line(),
    ("POST", "/v1/reviews/approve/"): Line({"ids": ["<review>"]}),
    ("POST", "/v1/reviews/reject/"): Line({"ids": ["<review>"]}),
    ("POST", "/v1/feedback/"): Line({"memory_id": "<memory>", "feedback": "POSITIVE"}),
    ("POST", "/v1/summary/"): Line(),
    ("GET", "/v2/profiles/settings/"): Line(),
    ("POST", "/v2/profiles/settings/"): Line(),
    ("POST", "/v2/profiles/jobs/"): Line(),
    ("GET", "/v2/profiles/jobs/{job_id}/"): Line(),
    ("GET", "/v2/entities/user/{user_id:path}/profile/"): Line(),
    ("GET", _PROJECTS): Line(),
    ("POST", _PROJECTS): Line(),
    ("DELETE", _PROJECT): Line(),
    **{(method, f"{_PROJECT}members/"): Line() for method in ("GET", "POST", "PUT", "DELETE")},
    ("PUT", "/v1/batch/"): Line({"memories": [{"memory_id": "<memory>", "text": "Likes coffee"}]}),
    ("DELETE", "/v1/batch/"): Line({"memories": [{"memory_id": "<memory>"}]}),
    ("POST", "/tools/get_user_context"): Line({"query": "tea", "user_id": "alice"}),
    ("POST", "/tools/store_interaction_summary"): Line(
        {"summary": "<words>", "channel": "call", "connector": "slack", "user_id": "alice"}
    ),
    ("POST", "/v1/identities/"): Line({"connector": "slack", "account": "<words>", "user_id": "alice"}),
    ("GET", "/v1/identities/"): Line(),
    ("DELETE", "/v1/identities/{identity_id}/"): Line(),
    ("POST", _HOOKS): Line({"url": HOOK, "name": "cache", "event_types": ["memory_delete"]}),
    ("GET", _HOOKS): Line(),
    ("PUT", "/api/v1/webhooks/{webhook_id}/"): Line({"name": "shop"}),
    ("DELETE", "/api/v1/webhooks/{webhook_id}/"): Line(),
    ("GET", "/api/v1/webhooks/{webhook_id}/deliveries/"): Line(),
    ("POST", "/memories"): Line(_ADD),
    ("POST", "/search"): Line({"query": "tea", "filters": {"user_id": "alice"}}),
    ("GET", "/memories"): Line(),
    ("GET", "/memories/{memory_id}"): Line(),
    ("PUT", "/memories/{memory_id}"): Line({"text": "Likes coffee"}),
    ("DELETE", "/memories/{memory_id}"): Line(),
    ("GET", "/memories/{memory_id}/history"): Line(),
    ("DELETE", "/memories"): Line(query={"user_id": "alice", "run_id": "<run>"}),
    ("GET", "/entities"): Line(),
    ("DELETE", "/entities/{entity_type}/{name:path}"): Line(
        path={"entity_type": "run", "name": "<run>"}, holds={"name": "run"}
    ),
}

TOOLS: Final[dict[str, Line]] = {
    "add_memory": Line({"text": "<words>", "user_id": "alice", "infer": False}),
    "search_memories": Line({"query": "tea"}),
    "get_memories": Line(),
    "get_memory": Line(),
    "update_memory": Line({"text": "Likes coffee"}),
    "delete_memory": Line(),
    "delete_all_memories": Line({"user_id": "alice", "run_id": "<run>"}),
    "delete_entities": Line({"run_id": "<run>"}, either=_SUBJECTS),
    "list_entities": Line(),
    "list_events": Line(),
    "get_event_status": Line(),
    "get_user_context": Line({"query": "tea", "user_id": "alice"}),
    "store_interaction_summary": Line({"summary": "<words>", "connector": "slack", "user_id": "alice"}),
}

#: Actions that no route and no tool takes, each with the reason.
OF_THE_CLI: Final[dict[str, str]] = {}
