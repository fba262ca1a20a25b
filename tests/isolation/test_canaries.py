"""No secret and no content where it does not belong: every route and tool, every field, good calls and bad ones."""

from __future__ import annotations

import re

import pytest

from service import clock
from tests.canaries import PATTERNS, Watch, leaks_in
from tests.isolation.attack.calls import Answer, Call
from tests.isolation.attack.scene import Scene
from tests.isolation.attack.surface import Operation, Parts, Place, operations

pytestmark = pytest.mark.integration

#: Values that a field may choke on, each with a canary in it. Not as an unknown key of a filter: such a key is told
#: back, shortened and made printable, because that is what its caller has to mend.
BAD = (
    "{canary}",
    "{canary}\x00",
    "\ud800{canary}",
    {"user_id": {"eq": {"oops": "{canary}"}}},
    ["{canary}", {"in": "{canary}"}],
    {"AND": [{"metadata": {"{canary}": {"oops": "{canary}"}}}]},
    "{canary}" * 2000,
)


def planted(value: object, canary: str) -> object:
    """Return a value with the canary in its places."""
    if isinstance(value, dict):
        return {str(planted(key, canary)): planted(one, canary) for key, one in value.items()}
    if isinstance(value, list):
        return [planted(one, canary) for one in value]
    return str(value).replace("{canary}", canary)


def calls_of(operation: Operation, parts: Parts, canary: str) -> list[Call]:
    """Return calls with the canary in every field, in a header, in the path, in the query and in a broken body."""
    made = []
    for place in operation.places:
        for bad in BAD:
            changed = parts.put(Place(place.part, place.keys, place.kind), planted(bad, canary))
            made.append(operation.call(changed))
    plain = operation.call(parts)
    made += [
        Call(plain.method, plain.path + canary, plain.query, plain.headers, plain.body),
        Call(plain.method, plain.path, f"{canary}={canary}&access_token={canary}", plain.headers, plain.body),
        Call(plain.method, plain.path, plain.query, plain.headers, f'{{"{canary}": "{canary}'.encode()),
        Call(plain.method, plain.path, plain.query, plain.headers, f'{{"{canary}": 1, "{canary}": 2}}'.encode()),
        plain.with_headers(("X-Purpose", canary * 20), ("X-Acting-User", f"{canary}%00")),
        plain.with_headers(("Content-Type", f"text/{canary}")),
        Call(canary.upper(), plain.path, plain.query, plain.headers, plain.body),
    ]
    return made


def refused(answer: Answer) -> bool:
    """Whether an answer is an error, over REST or over MCP."""
    return answer.status >= 400 or b'"isError":true' in answer.body or b'"error":{"code"' in answer.body


@pytest.mark.parametrize("name", operations())
def test_no_error_log_metric_or_audit_row_holds_what_was_sent(name: str, scene: Scene) -> None:
    """The log is watched by tests/canaries.py, as in every test."""
    operation, world, admin = operations()[name], scene.world, scene.attackers[0]
    canary = f"zoe-{clock.new_random_id().hex[:8]}"
    assert PATTERNS.fullmatch(canary)
    wrong: list[str] = []
    errors = 0
    calls = calls_of(operation, scene.filled(admin, operation.parts, fresh=True), canary)
    keys = [("Authorization", f"Bearer {admin.secret}"), ("X-Request-ID", f"probe.{canary[4:]}")]
    for call in [one.with_headers(*keys) for one in calls]:
        (answer,) = world.wire.send([call])
        head = [one for one in answer.headers if one[0] != "x-request-id"]
        # Which resource could not be read is told as the protocol asks.
        told = re.sub(r'"uri":"[^"]*"', "", answer.body.decode("utf-8", "replace"))
        if canary in str(head) or (refused(answer) and canary in told):
            wrong.append(f"{answer.status} {answer.body[:200]!r} {head} for {call}"[:800])
        if admin.secret in answer.body.decode("utf-8", "replace"):
            wrong.append(f"the key in the answer to {call}"[:300])
        errors += refused(answer)
    assert not wrong, f"{len(wrong)} of {len(calls)}\n" + "\n".join(wrong[:5])
    assert errors > 3
    (metrics,) = world.wire.send([Call("GET", "/metrics")])
    assert not leaks_in(metrics.body.decode())
    for (row,) in world.rows("SELECT to_jsonb(a)::text FROM audit a WHERE tenant_id = %s", [scene.here]):
        told = re.sub(r'"(purpose|client|request_id)": "[^"]*"', "", row)
        assert not leaks_in(told), told


def test_the_watch_sees_what_it_is_for() -> None:
    import logging

    record = logging.LogRecord("memvault.x", logging.INFO, "x.py", 1, "a request of zoe-0123abcd", None, None)
    watch = Watch()
    from tests import canaries

    watch.emit(record)
    found, canaries._FOUND[:] = list(canaries._FOUND), []
    assert found == ["a record of memvault.x: 'zoe-0123abcd'"]
    assert leaks_in(f"key mv_{'x' * 43}")
    assert leaks_in("the text-canary is here")
    assert not leaks_in("/tmp/pytest/test_no_canary0/data")
