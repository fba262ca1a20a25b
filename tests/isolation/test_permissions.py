"""The permission comes first: whoever lacks it hears so, whatever else is wrong with the call, and the trail knows."""

from __future__ import annotations

import pytest

from service.audit.events import AuditEvent
from service.auth.keys import Grant
from service.policy.table import ROLES, authorize
from service.scope import Action, Principal
from tests.isolation.attack.calls import Answer, Call
from tests.isolation.attack.scene import Scene
from tests.isolation.attack.surface import Operation, operations

pytestmark = pytest.mark.integration

ROUTES = {name: one for name, one in operations().items() if one.method and one.action is not None}


def malformed(operation: Operation, call: Call) -> list[Call]:
    """Return calls of the operation with which something else is wrong as well."""
    path = operation.template.replace(":path}", "}")
    for name in operation.parts.path:
        path = path.replace(f"{{{name}}}", "no-id")
    made = [Call(call.method, path, call.query, call.headers, call.body)]
    made.append(Call(call.method, call.path, "user_id=a&user_id=b&page=x", call.headers, call.body))
    made += [Call(call.method, call.path, call.query, call.headers, body) for body in (b"{", b"[]", b'{"a":1,"a":2}')]
    return made


def told(answer: Answer) -> tuple[int, bool]:
    """Return the status, and whether it is our error."""
    return answer.status, b'"code":"forbidden"' in answer.body


@pytest.mark.parametrize("name", ROUTES)
def test_who_lacks_the_permission_is_refused_whatever_else_is_wrong(name: str, scene: Scene) -> None:
    operation, world = ROUTES[name], scene.world
    admin = scene.attackers[0]
    refused = 0
    grants = {role: Grant(permissions) for role, permissions in ROLES.items()} | {"nobody": Grant(frozenset())}
    for role, grant in grants.items():
        minted = world.services.installation.keys.mint_for_installation(scene.here, grant)
        principal = Principal(scene.here, minted.id, grant.permissions)
        assert operation.action is not None
        if authorize(principal, operation.action):
            continue
        call = operation.call(scene.filled(admin, operation.parts, fresh=True))
        for number, one in enumerate([call, *malformed(operation, call)]):
            request_id = f"{role}-{number}-{scene.unique()}"
            headers = (("Authorization", f"Token {minted.secret}"), ("X-Request-ID", request_id))
            (answer,) = world.wire.send([one.with_headers(*headers)])
            assert told(answer) == (403, True), (role, one, answer)
            rows = world.rows("SELECT tenant_id, event FROM audit WHERE request_id = %s", [request_id])
            assert rows == [(scene.here, AuditEvent.ACCESS_DENIED.value)], (role, one)
            refused += 1
    assert refused > 0 or operation.action is Action.PING
