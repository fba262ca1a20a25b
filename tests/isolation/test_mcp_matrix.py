"""One matrix of principals, actions and targets, run over REST and over MCP: both faces decide the same.

The decision that is expected is worked out from the table of permissions and from who owns a target, so that both faces
cannot be wrong together. A route or a tool that is in no row fails the test.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
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
from service.scope import Caller, Permission, Principal, PrincipalKind, TenantId
from service.webhooks.announcing import EventType
from service.wiring import Services
from tests.clients.serving import serving
from tests.conftest import MakeServices
from tests.isolation.attack.surface import guarded_routes
from tests.isolation.mcp_rows import (
    ALLOWED,
    FORBIDDEN,
    INVALID,
    NOT_FOUND,
    NULL,
    ROWS,
    UNAUTHENTICATED,
    URL,
    VERSION,
    Row,
    Target,
    Who,
    all_rows,
)

pytestmark = pytest.mark.integration


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
