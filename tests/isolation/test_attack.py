"""Nobody crosses a line: every route, tool and action is attacked from another tenant and from beside the victim.

What is attacked is read from the app, the list of tools and the list of actions; how to add a line for a new one is
told in `attack/lines.py`. An attempt asks for a thing of the victim's and, in the same words, for one that does not
exist: both answers are the same but for ids and times of their own. Afterwards the victim's rows and points are what
they were, and the attempts are in the trail of the attacker's tenant alone.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from service import clock
from service.mcp.tools import TOOLS as SERVED_TOOLS
from service.scope import Action
from tests.isolation.attack.oracle import attempt
from tests.isolation.attack.plan import Attack, attacks_on
from tests.isolation.attack.scene import Attacker, Scene
from tests.isolation.attack.surface import (
    guarded_routes,
    open_routes,
    operations,
)
from tests.isolation.attack.tally import ATTEMPTS

pytestmark = pytest.mark.integration

PUBLIC = {"/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"}
FEWEST = 20_000
HELP = "tests/isolation/attack/lines.py says how to add a line"

Record = Callable[[str, object], None]


def tried_by(attacker: Attacker, attacks: list[Attack]) -> list[Attack]:
    """What an attacker tries: everything, or the plain attacks. A neighbour is in the victim's tenant already."""
    if attacker.neighbour:
        return [one for one in attacks if one.kind != "tenant"]
    return attacks if attacker.full else [one for one in attacks if one.plain]


def tries(attack: Attack) -> int:
    """By how many attackers an attack is tried: the full one, the neighbour, and three others where it is plain."""
    return 1 + (attack.kind != "tenant") + 3 * attack.plain


def test_there_is_something_to_attack() -> None:
    assert len(guarded_routes()) > 20
    assert len(SERVED_TOOLS) > 10
    assert len(Action) > 10
    assert len(operations()) == len(guarded_routes()) + len(SERVED_TOOLS) + 1, HELP
    assert open_routes() <= PUBLIC, "a route without a principal"


def test_there_are_enough_attempts() -> None:
    planned = {name: list(attacks_on(one)) for name, one in operations().items()}
    assert all(len(attacks) > 50 for attacks in planned.values())
    sure = sum(sum(map(tries, attacks)) for attacks in planned.values())
    assert sure >= FEWEST


@pytest.mark.parametrize("name", operations())
def test_a_valid_call_reaches_its_action(name: str, scene: Scene) -> None:
    """An attack that is refused by its form proves nothing, so the call that it begins from must do something."""
    operation, admin = operations()[name], scene.attackers[0]
    call = operation.call(scene.filled(admin, operation.parts, fresh=True))
    (answer,) = scene.world.wire.send([call.with_headers(("Authorization", f"Bearer {admin.secret}"))])
    if operation.action is None:
        assert answer.status == 501 or b'"not_enabled"' in answer.body, answer
        return
    if operation.action is Action.SUMMARIZE:
        # It comes past the gate; the rest needs a language model: tests/integration/api/test_summary.py.
        assert b'"llm_required"' in answer.body, answer
        return
    assert answer.status < 300, answer
    assert b'"isError":true' not in answer.body, answer
    assert b'"error":{' not in answer.body, answer


@pytest.mark.parametrize("name", operations())
def test_nobody_crosses_a_line(name: str, scene: Scene, record_property: Record) -> None:
    operation = operations()[name]
    attacks = list(attacks_on(operation))
    for attack in attacks:
        scene.control(attack.kind)
    wrong: list[str] = []
    made = 0
    for number, attacker in enumerate(scene.attackers):
        before = scene.digest(attacker)
        assert all(before[table] for table in ("memories", "subjects", "history", "index"))
        tried = tried_by(attacker, attacks)
        wrong += attempt(scene, operation, attacker, tried, f"{clock.new_random_id().hex[:12]}.{number}")
        made += len(tried)
        changed = [table for table, rows in scene.digest(attacker).items() if rows != before[table]]
        wrong += [f"{attacker.name}: changed the victim's {table}" for table in changed]
    record_property(ATTEMPTS, made)
    assert not wrong, f"{len(wrong)} of {made} attempts:\n" + "\n".join(wrong[:12])
    assert made == sum(map(tries, attacks))
