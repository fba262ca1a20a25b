"""The rows of the matrix of both faces: each action with its tools, its routes and what they are about."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx

from service.scope import Action, Permission, Principal, TenantId
from tests.isolation.attack.scene import HOLE
from tests.isolation.attack.surface import Operation, operations

VERSION = "2026-07-28"
ALLOWED, NOT_FOUND, FORBIDDEN, UNAUTHENTICATED, INVALID = (
    "allowed",
    "not found",
    "forbidden",
    "unauthenticated",
    "invalid",
)
DECISIONS = {400: INVALID, 401: UNAUTHENTICATED, 403: FORBIDDEN, 404: NOT_FOUND}
NULL = "\x00"


@dataclass(frozen=True)
class Target:
    """What a call is about. `user` and `tenant` own it; None: there is no such thing, or it cannot be one's name."""

    name: str
    value: str = ""
    user: str | None = None
    tenant: TenantId | None = None


@dataclass(frozen=True)
class Who:
    """A principal of the matrix. `principal` is None for a key that is no credential any more."""

    name: str
    key: str
    principal: Principal | None


@dataclass(frozen=True)
class Rest:
    """A request of the REST face for a target."""

    method: str
    path: str
    json: Callable[[str], dict[str, Any]] | None = None
    query: str | None = None

    def send(self, client: httpx.Client, key: str, value: str) -> str:
        """Send it and return the decision."""
        path = re.sub(r"\{[a-z_]+_id\}", quote(value, safe=""), self.path).replace("{entity_type}", "user")
        answer = client.request(
            self.method,
            path.replace("{name:path}", quote(value, safe="")),
            json=None if self.json is None else self.json(value),
            params=None if self.query is None else {self.query: value},
            headers={"Authorization": f"Token {key}"},
        )
        assert answer.status_code in (200, 201, 202, *DECISIONS), answer.text
        return DECISIONS.get(answer.status_code, ALLOWED)


@dataclass(frozen=True)
class Row:
    """One thing to do. `about` says what its targets are; a row without `tool` is of the REST face alone."""

    action: Action
    about: str
    rest: tuple[Rest | Derived, ...]
    tool: str | None = None
    arguments: Callable[[str], dict[str, Any]] = lambda value: {}
    resource: bool = False
    consumes: bool = False

    @property
    def name(self) -> str:
        """What it is called in the report."""
        return self.tool or ("resources/read" if self.resource else self.action.value)


def messages(user: str) -> dict[str, Any]:
    """The body of an add for a user."""
    return {"messages": [{"role": "user", "content": "x"}], "user_id": user, "infer": False}


def filtered(user: str) -> dict[str, Any]:
    """A filter for a user."""
    return {"filters": {"user_id": user}}


def hold_body(_: str) -> dict[str, Any]:
    """A hold on a memory that is not there: it is refused as not found once it may be asked for."""
    return {"name": f"case-{uuid4()}", "reason": "why", "filters": {"memory_ids": [str(uuid4())]}}


def searched(user: str) -> dict[str, Any]:
    """The body of a search for a user."""
    return {"query": "x", **filtered(user)}


def summary(user: str) -> dict[str, Any]:
    """The body of a summary of an interaction with a user."""
    return {"summary": "x", "channel": "c", "connector": "c", "user_id": user}


ONE = "/v1/memories/{memory_id}/"
PROJECTS = "/api/v1/orgs/organizations/{org_id}/projects/"
PROJECT = PROJECTS + "{project_id}/"
HOOKS = "/api/v1/webhooks/projects/{project_id}/"
URL = "https://hook.example/"
HOOK = {"url": URL, "name": "x", "event_types": ["memory_delete"]}
ACCOUNT = {"connector": "slack", "account": "U1", "user_id": "alice"}
ROWS = (
    Row(
        Action.ADD,
        "user",
        (Rest("POST", "/v3/memories/add/", messages), Rest("POST", "/v1/memories/", messages)),
        "add_memory",
        lambda user: {"text": "x", "user_id": user, "infer": False},
    ),
    Row(
        Action.ADD,
        "user",
        (Rest("POST", "/tools/store_interaction_summary", summary),),
        "store_interaction_summary",
        summary,
    ),
    Row(
        Action.SEARCH,
        "user",
        (
            Rest("POST", "/v3/memories/search/", searched),
            Rest("POST", "/v2/memories/search/", searched),
            Rest("POST", "/v1/memories/search/", lambda user: {"query": "x", "user_id": user}),
        ),
        "search_memories",
        searched,
    ),
    Row(
        Action.SEARCH,
        "user",
        (Rest("POST", "/tools/get_user_context", lambda user: {"query": "x", "user_id": user}),),
        "get_user_context",
        lambda user: {"query": "x", "user_id": user},
    ),
    Row(
        Action.LIST,
        "user",
        (
            Rest("POST", "/v3/memories/", filtered),
            Rest("POST", "/v2/memories/", filtered),
            Rest("GET", "/v1/memories/", query="user_id"),
        ),
        "get_memories",
        filtered,
    ),
    Row(Action.LIST, "user", (Rest("POST", "/v3/memories/", filtered),), resource=True),
    Row(Action.GET, "memory", (Rest("GET", ONE),), "get_memory", lambda one: {"memory_id": one}),
    Row(
        Action.UPDATE,
        "memory",
        (Rest("PUT", ONE, lambda one: {"text": "y"}),),
        "update_memory",
        lambda one: {"memory_id": one, "text": "y"},
    ),
    Row(Action.HISTORY, "memory", (Rest("GET", f"{ONE}history/"),)),
    Row(
        Action.DELETE,
        "memory",
        (Rest("DELETE", ONE),),
        "delete_memory",
        lambda one: {"memory_id": one},
        consumes=True,
    ),
    Row(
        Action.GET_EVENT,
        "event",
        (Rest("GET", "/v1/event/{event_id}/"),),
        "get_event_status",
        lambda one: {"event_id": one},
    ),
    Row(Action.LIST_EVENTS, "nothing", (Rest("GET", "/v1/events/"),), "list_events"),
    Row(Action.LIST_ENTITIES, "nothing", (Rest("GET", "/v1/entities/"),), "list_entities"),
    Row(
        Action.DELETE_ALL,
        "user",
        (Rest("DELETE", "/v1/memories/", query="user_id"),),
        "delete_all_memories",
        lambda user: {"user_id": user},
    ),
    Row(
        Action.DELETE_ENTITY,
        "entity",
        (
            Rest("DELETE", "/v2/entities/{entity_type}/{name:path}/"),
            Rest("DELETE", "/v1/entities/{entity_type}/{name:path}/"),
        ),
        "delete_entities",
        lambda user: {"user_id": user},
        consumes=True,
    ),
    Row(Action.PING, "nothing", (Rest("GET", "/v1/ping/"),)),
    Row(Action.LIST_KEYS, "nothing", (Rest("GET", "/v1/keys/"),)),
    Row(
        Action.CREATE_KEY,
        "nothing",
        # Wider than nobody: what a key may pass on is another test's matter.
        (Rest("POST", "/v1/keys/", lambda _: {"permissions": [Permission.KEY_MANAGE.value]}),),
    ),
    # Bound principals lack the permission here; what they may not do with it is another test's matter.
    Row(Action.LINK_IDENTITY, "nothing", (Rest("POST", "/v1/identities/", lambda _: ACCOUNT),)),
    Row(Action.LIST_IDENTITIES, "nothing", (Rest("GET", "/v1/identities/"),)),
    Row(Action.UNLINK_IDENTITY, "identity", (Rest("DELETE", "/v1/identities/{identity_id}/"),), consumes=True),
    Row(Action.CREATE_WEBHOOK, "project", (Rest("POST", HOOKS, lambda _: HOOK),)),
    Row(Action.LIST_WEBHOOKS, "project", (Rest("GET", HOOKS),)),
    Row(Action.UPDATE_WEBHOOK, "webhook", (Rest("PUT", "/api/v1/webhooks/{webhook_id}/", lambda _: {"name": "x"}),)),
    Row(Action.LIST_DELIVERIES, "webhook", (Rest("GET", "/api/v1/webhooks/{webhook_id}/deliveries/"),)),
    Row(Action.DELETE_WEBHOOK, "webhook", (Rest("DELETE", "/api/v1/webhooks/{webhook_id}/"),), consumes=True),
    Row(Action.READ_AUDIT, "nothing", (Rest("GET", "/v1/audit/"),)),
    Row(Action.EXPORT_AUDIT, "nothing", (Rest("GET", "/v1/audit/export/"),)),
    Row(Action.ROTATE_KEY, "key", (Rest("POST", "/v1/keys/{key_id}/rotate/", lambda _: {}),)),
    Row(
        Action.CHANGE_KEY,
        "key",
        (Rest("PATCH", "/v1/keys/{key_id}/", lambda _: {"permissions": [Permission.KEY_MANAGE.value]}),),
    ),
    Row(Action.LIST_ERASURES, "nothing", (Rest("GET", "/v1/erasures/"),)),
    Row(Action.GET_ERASURE, "erasure", (Rest("GET", "/v1/erasures/{erasure_id}/"),)),
    # Of nobody: whom an erasure reaches is told by tests/integration/retention.
    Row(Action.REQUEST_ERASURE, "nothing", (Rest("POST", "/v1/erasures/", lambda _: {"connector": "none"}),)),
    Row(Action.REMOVE_CONNECTOR, "nothing", (Rest("DELETE", "/v1/connectors/{name}/"),)),
    Row(Action.LIST_RETENTION_RULES, "nothing", (Rest("GET", "/v1/retention/rules/"),)),
    Row(Action.LIST_RETENTION_RULES, "rule", (Rest("GET", "/v1/retention/rules/{rule_id}/"),)),
    Row(
        Action.SET_RETENTION_RULE,
        "nothing",
        (Rest("POST", "/v1/retention/rules/", lambda _: {"name": f"rule-{uuid4()}", "age": "P100Y"}),),
    ),
    Row(
        Action.SET_RETENTION_RULE,
        "rule",
        (Rest("PUT", "/v1/retention/rules/{rule_id}/", lambda _: {"name": f"rule-{uuid4()}", "age": "P100Y"}),),
    ),
    Row(
        Action.REMOVE_RETENTION_RULE,
        "rule",
        (Rest("DELETE", "/v1/retention/rules/{rule_id}/"),),
        consumes=True,
    ),
    Row(Action.RUN_RETENTION, "nothing", (Rest("POST", "/v1/retention/runs/", lambda _: {"dry_run": True}),)),
    Row(Action.LIST_RETENTION_RUNS, "nothing", (Rest("GET", "/v1/retention/runs/"),)),
    Row(
        Action.GET_RETENTION_RUN,
        "retention_run",
        (
            Rest("GET", "/v1/retention/runs/{retention_run_id}/"),
            Rest("GET", "/v1/retention/runs/{retention_run_id}/items/"),
        ),
    ),
    Row(Action.LIST_HOLDS, "nothing", (Rest("GET", "/v1/holds/"),)),
    Row(
        Action.GET_HOLD,
        "hold",
        (Rest("GET", "/v1/holds/{hold_id}/"), Rest("GET", "/v1/holds/{hold_id}/members/")),
    ),
    # Who may, and of whose tenant; that nobody without a known person may is told by tests/integration/holds.
    Row(Action.PLACE_HOLD, "nothing", (Rest("POST", "/v1/holds/", hold_body),)),
    Row(
        Action.RELEASE_HOLD,
        "hold",
        (Rest("POST", "/v1/holds/{hold_id}/release/", lambda _: {"reason": "why"}),),
        consumes=True,
    ),
    Row(Action.REQUEST_EXPORT, "user", (Rest("POST", "/v1/exports/", filtered),)),
    Row(
        Action.READ_EXPORT,
        "export",
        (
            Rest("POST", "/v1/exports/get/", lambda one: {"memory_export_id": one}),
            Rest("GET", "/v1/exports/{export_id}/download/"),
        ),
    ),
    Row(Action.IMPORT_MEMORIES, "nothing", (Rest("POST", "/v1/imports/"),)),
    Row(Action.GET_PROJECT, "tenant", (Rest("GET", PROJECT),)),
    Row(Action.UPDATE_PROJECT, "tenant", (Rest("PATCH", PROJECT, lambda _: {"custom_instructions": "x"}),)),
    Row(Action.REVOKE_KEY, "key", (Rest("DELETE", "/v1/keys/{key_id}/"),), consumes=True),
)


@dataclass(frozen=True)
class Derived:
    """A request of a route that stands in no row by hand: made of its line in `attack/lines.py`."""

    operation: Operation
    about: str

    @property
    def method(self) -> str:
        """The method."""
        return self.operation.method

    @property
    def path(self) -> str:
        """The path."""
        return self.operation.template

    def send(self, client: httpx.Client, key: str, value: str) -> str:
        """Send it and return the decision."""
        parts = self.operation.parts
        if self.about == "entity":
            parts = replace(parts, path={"entity_type": "user", "name": value})
        elif self.about == "user":
            named = [one for one in self.operation.holding("user") if one.part in ("query", "body")]
            filters = self.operation.holding("filters")
            parts = replace(parts, query={name: one for name, one in parts.query.items() if not HOLE.fullmatch(one)})
            parts = parts.put(named[0], value) if named else parts.put(filters[0], {"user_id": value})
        elif self.about != "nothing":
            parts = parts.put(self.operation.holding(self.about)[0], value)
        call = self.operation.call(parts)
        headers = {**dict(call.headers), "Authorization": f"Token {key}"}
        url = f"{call.path}?{call.query}" if call.query else call.path
        answer = client.request(call.method, url, content=call.body, headers=headers)
        assert answer.status_code in (200, 201, *DECISIONS), answer.text
        return DECISIONS.get(answer.status_code, ALLOWED)


def all_rows() -> list[Row]:
    """The rows, with the routes of the same action that stand in none by hand."""
    by_hand = {(rest.method, rest.path) for row in ROWS for rest in row.rest}
    done: set[Action] = set()
    rows = []
    for row in ROWS:
        more = [
            Derived(one, row.about)
            for one in operations().values()
            if one.method and one.action is row.action and (one.method, one.template) not in by_hand | OF_THE_TRAIL
        ]
        rows.append(replace(row, rest=(*row.rest, *([] if row.action in done else more))))
        done.add(row.action)
    return rows


#: REST alone, and their answers depend on what the trail holds: tests/integration/audit_reading asks them as everybody.
OF_THE_TRAIL = {("GET", "/v1/audit/known/"), ("POST", "/v1/audit/match/")}
