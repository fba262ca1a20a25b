"""One matrix of principals, actions and targets, run over REST and over MCP: both faces decide the same.

The decision that is expected is worked out from the table of permissions and from who owns a target, so that both faces
cannot be wrong together. A route or a tool that is in no row fails the test.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import FastAPI

from service import clock
from service.auth.keys import Grant
from service.holds.rules import RuleBody
from service.holds.spans import Span
from service.main import create_app
from service.mcp.tools import TOOLS
from service.policy.table import ROLES, authorize
from service.portability.exports import Wanted
from service.records import Identity, Message, NewMemories, SubjectNames
from service.retention.holds import NewHold
from service.retention.ledger import ErasureKind
from service.retention.ledger import Target as ErasureTarget
from service.scope import Action, Caller, Permission, Principal, PrincipalKind, TenantId
from service.webhooks.announcing import EventType
from service.wiring import Services
from tests.clients.serving import serving
from tests.conftest import MakeServices
from tests.isolation.attack.scene import HOLE
from tests.isolation.attack.surface import Operation, guarded_routes, operations

pytestmark = pytest.mark.integration

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


#: REST alone, and they answer everybody alike, with 501.
NOT_OFFERED = {("GET", PROJECTS), ("POST", PROJECTS), ("DELETE", PROJECT)} | {
    (method, f"{PROJECT}members/") for method in ("GET", "POST", "PUT", "DELETE")
}


class Matrix:
    """The principals and the targets, made anew where a call uses them up."""

    def __init__(self, services: Services) -> None:
        self._services = services
        tenants = services.installation.tenants
        self.home, self.abroad = tenants.create("home").id, tenants.create("abroad").id
        self._callers = {tenant: self._caller(tenant) for tenant in (self.home, self.abroad)}
        self._count = 0

    def principals(self) -> list[Who]:
        """The principals."""
        keys = self._services.installation.keys
        roles = [self._who(role, self.home, Grant(ROLES[role], owner=role)) for role in ROLES]
        bound = self._who("bound agent", self.home, Grant(ROLES["agent"], users=frozenset({"alice"})))
        foreign = self._who("other tenant's admin", self.abroad, Grant(ROLES["admin"], owner="abroad"))
        revoked = keys.mint_for_installation(self.home, Grant(ROLES["admin"]))
        keys.revoke_for_installation(self.home, revoked.id)
        ended = Grant(ROLES["admin"], expires_at=clock.now() - timedelta(seconds=1))
        expired = keys.mint_for_installation(self.home, ended)
        gone = [Who("revoked key", revoked.secret, None), Who("expired key", expired.secret, None)]
        return [*roles, bound, foreign, *gone]

    def targets(self, about: str) -> list[Target]:
        """The targets of a row, new ones."""
        if about == "nothing":
            return [Target("-")]
        if about == "user":
            return [
                Target("own user", "alice", "alice", self.home),
                Target("other user", "bob", "bob", self.home),
                Target("other tenant's user", "zoe", "zoe", self.abroad),
                Target("missing user", f"nobody-{self._next()}"),
                Target("malformed user", NULL),
            ]
        if about == "tenant":
            return [
                Target("own tenant", str(self.home), tenant=self.home),
                Target("other tenant", str(self.abroad), tenant=self.abroad),
                Target("missing tenant", str(uuid4())),
                Target("malformed tenant", "not-an-id"),
            ]
        if about == "entity":
            # Alice is needed to the end, so it is somebody new each time.
            names = [f"person-{self._next()}" for _ in range(3)]
            owners = [self.home, self.home, self.abroad]
            for name, owner in zip(names, owners, strict=True):
                self._added(owner, name)
            kinds = ("own user", "other user", "other tenant's user")
            made = [Target(*one) for one in zip(kinds, names, names, owners, strict=True)]
            return [*made, Target("missing user", f"nobody-{self._next()}"), Target("malformed user", NULL)]
        places = [
            ("own", self.home, "alice"),
            ("other user's", self.home, "bob"),
            ("other tenant's", self.abroad, "zoe"),
        ]
        made = [Target(kind, self._made(about, tenant, user), user, tenant) for kind, tenant, user in places]
        return [*made, Target("missing id", str(uuid4())), Target("malformed id", "not-an-id")]

    def _made(self, about: str, tenant: TenantId, user: str) -> str:
        if about == "key":
            # One that whoever may make keys may rotate: what is wider than the caller is another test's matter.
            grant = Grant(frozenset({Permission.KEY_MANAGE}))
            return str(self._services.installation.keys.mint_for_installation(tenant, grant).id)
        if about == "erasure":
            target = ErasureTarget(ErasureKind.CONNECTOR, f"connector-{self._next()}")
            return str(self._services.installation.erasures.request_for_installation(tenant, target).id)
        if about == "rule":
            caller, body = self._callers[tenant], RuleBody(f"rule-{self._next()}", age=Span("P100Y"))
            return str(self._services.installation.retention_rules.create(caller, caller.scope, body).id)
        if about == "retention_run":
            caller = self._callers[tenant]
            return str(self._services.installation.retention_runs.start(caller, caller.scope, dry=True).id)
        if about == "hold":
            _, memory = self._added(tenant, user)
            principal = Principal(tenant, uuid4(), ROLES["admin"], kind=PrincipalKind.TOKEN, person=uuid4())
            stranger = Caller(principal, request_id="matrix")
            hold = NewHold(f"case-{self._next()}", "why", memory_ids=[UUID(memory)])
            return str(self._services.installation.holds.place(stranger, stranger.scope, hold).stored.id)
        if about == "export":
            caller = self._callers[tenant]
            wanted = Wanted(SubjectNames(user_id=user))
            return str(self._services.exports.request(caller, caller.scope, wanted))
        if about == "project":
            return str(tenant)
        if about == "webhook":
            caller = self._callers[tenant]
            made = self._services.webhooks.create(caller, caller.scope, "x", URL, [EventType.DELETED])
            return str(made.id)
        if about == "identity":
            caller = self._callers[tenant]
            account = Identity("matrix", f"account {self._next()}")
            return str(self._services.identities.link(caller, caller.scope, account, user).id)
        event, memory = self._added(tenant, user)
        return event if about == "event" else memory

    def _added(self, tenant: TenantId, user: str) -> tuple[str, str]:
        caller = self._callers[tenant]
        told = Message("user", f"fact {self._next()}")
        new = NewMemories([told], SubjectNames(user_id=user), infer=False)
        event = self._services.adds.add(caller, caller.scope, new)
        return str(event.id), str(event.results[0].memory_id)

    def _caller(self, tenant: TenantId) -> Caller:
        who = self._who("maker", tenant, Grant(ROLES["admin"]))
        assert who.principal is not None
        return Caller(who.principal, request_id="matrix")

    def _who(self, name: str, tenant: TenantId, grant: Grant) -> Who:
        minted = self._services.installation.keys.mint_for_installation(tenant, grant)
        principal = self._services.installation.keys.find_principal(minted.secret)
        assert principal is not None
        return Who(name, minted.secret, principal)

    def _next(self) -> int:
        self._count += 1
        return self._count


def expected(who: Who, row: Row, target: Target) -> str:
    """The decision by the rules: the credential, then the permission, then the bounds, then the thing itself."""
    if who.principal is None:
        return UNAUTHENTICATED
    if not authorize(who.principal, row.action):
        return FORBIDDEN
    users, home = who.principal.users, who.principal.tenant_id
    if row.about == "nothing":
        return ALLOWED
    if row.about == "user":
        if target.value == NULL:
            return INVALID
        return ALLOWED if users is None or target.value in users else FORBIDDEN
    if row.about == "tenant":
        return ALLOWED if target.tenant == home else NOT_FOUND
    reached = target.tenant == home and (users is None or target.user in users)
    return ALLOWED if reached else NOT_FOUND


def over_mcp(client: httpx.Client, who: Who, row: Row, value: str) -> str:
    """Make the call over MCP and return the decision."""
    if row.resource:
        uri = f"memory://users/{quote(value, safe='')}"
        answer = send(client, who, "resources/read", {"uri": uri}, uri)
    else:
        arguments = row.arguments(value)
        answer = send(client, who, "tools/call", {"name": row.tool, "arguments": arguments}, str(row.tool))
    if answer.status_code == 401:
        return UNAUTHENTICATED
    body = answer.json()
    if "error" in body:
        told = body["error"]["message"]
    elif body["result"].get("isError"):
        told = body["result"]["content"][0]["text"]
    else:
        return ALLOWED
    codes = {"forbidden": FORBIDDEN, "not_found": NOT_FOUND, "invalid_input": INVALID}
    return codes.get(told.partition(":")[0], told)


def send(
    client: httpx.Client, who: Who, method: str, params: dict[str, Any], name: str | None = None
) -> httpx.Response:
    """Send one MCP message."""
    meta = {"io.modelcontextprotocol/protocolVersion": VERSION, "io.modelcontextprotocol/clientCapabilities": {}}
    headers = {"Authorization": f"Bearer {who.key}", "MCP-Protocol-Version": VERSION, "Mcp-Method": method}
    headers |= {"Accept": "application/json, text/event-stream"} | ({} if name is None else {"Mcp-Name": name})
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
    return client.post("/mcp", json=body, headers=headers)


@pytest.fixture
def services(make_services: MakeServices) -> Services:
    """Services that would notify a host which there is not."""
    return make_services(webhooks={"allowed_hosts": ["hook.example"]})


@pytest.fixture
def app(services: Services) -> FastAPI:
    """The whole app."""
    return create_app(services)


@pytest.fixture
def client(app: FastAPI) -> Iterator[httpx.Client]:
    """A client of the served app."""
    with serving(app) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


def test_every_tool_and_every_route_of_its_action_is_in_the_matrix() -> None:
    """Routes of actions that no tool takes are asked as every role by test_permissions.py."""
    routes = {(rest.method, rest.path) for row in all_rows() for rest in row.rest}
    of_tools = {tool.action for tool in TOOLS.values()}
    served = {place for place, route in guarded_routes().items() if route.action in of_tools}
    assert len(served) > 10
    assert served <= routes <= set(guarded_routes())
    assert {row.tool for row in ROWS if row.tool} == set(TOOLS)
    assert of_tools <= {row.action for row in ROWS}
    assert all(TOOLS[row.tool].action is row.action for row in ROWS if row.tool)


def test_both_faces_decide_the_same(services: Services, client: httpx.Client) -> None:
    matrix = Matrix(services)
    principals = matrix.principals()
    cells = Counter[str]()
    wrong: list[str] = []
    for row in all_rows():
        for place, target in enumerate(matrix.targets(row.about)):
            for who in principals:
                wanted = expected(who, row, target)
                # What a call uses up is made anew for the next one.
                used_up = row.consumes and wanted == ALLOWED

                def value(row: Row = row, place: int = place, kept: Target | None = None if used_up else target) -> str:
                    return (kept or matrix.targets(row.about)[place]).value

                decided = {f"{rest.method} {rest.path}": rest.send(client, who.key, value()) for rest in row.rest}
                if row.tool or row.resource:
                    decided["mcp"] = over_mcp(client, who, row, value())
                cells[wanted] += 1
                wrong += [
                    f"{who.name} / {row.name} / {target.name}: {face} says {got!r}, not {wanted!r}"
                    for face, got in decided.items()
                    if got != wanted
                ]
    print(f"matrix: {cells.total()} cells, {dict(cells)}")
    assert not wrong, "\n".join(wrong)
    assert set(cells) == {ALLOWED, NOT_FOUND, FORBIDDEN, UNAUTHENTICATED, INVALID}
    assert cells.total() > 600


def test_a_principal_sees_the_tools_that_it_may_use_and_no_others(services: Services, client: httpx.Client) -> None:
    for who in Matrix(services).principals():
        answer = send(client, who, "tools/list", {})
        if who.principal is None:
            assert answer.status_code == 401
            continue
        shown = {tool["name"] for tool in answer.json()["result"]["tools"]}
        assert shown == {row.tool for row in ROWS if row.tool and authorize(who.principal, row.action)}, who.name
