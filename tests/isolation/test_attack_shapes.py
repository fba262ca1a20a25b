"""Nobody crosses a line by a shape that nobody thought of: random filters and random values, judged as all attacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from service import clock
from tests.isolation.attack import shapes
from tests.isolation.attack.oracle import attempt
from tests.isolation.attack.plan import Attack
from tests.isolation.attack.scene import Attacker, Scene
from tests.isolation.attack.surface import Operation, operations
from tests.isolation.attack.tally import ATTEMPTS

# Some bodies are long, and Hypothesis warns of what it would print of them.
pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore:Generating overly large repr")]

BATCHES = 2
FILTERED = [name for name, one in operations().items() if one.holding("filters")]
SHAPED = [name for name, one in operations().items() if one.places]

Record = Callable[[str, object], None]


def attacked(scene: Scene, batches: st.SearchStrategy[Sequence[Attack]], operation: Operation, record: Record) -> None:
    """Make the attempts of some batches by both attackers that try everything, and look at the victim afterwards."""
    for kind in ("user", "agent", "memory", "tenant"):
        scene.control(kind)
    made = 0
    for attacker in scene.attackers:
        if attacker.full:
            before = scene.digest(attacker)
            made += tried(scene, batches, operation, attacker)
            assert scene.digest(attacker) == before, attacker.name
    record(ATTEMPTS, made)
    # How many there are is Hypothesis's to say; the number that is promised comes from the generated attacks alone.
    assert made


def tried(scene: Scene, batches: st.SearchStrategy[Sequence[Attack]], operation: Operation, attacker: Attacker) -> int:
    """Make the attempts of some batches and return how many they were."""
    made = 0

    @settings(
        max_examples=BATCHES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(batches)
    def run(attacks: Sequence[Attack]) -> None:
        nonlocal made
        made += len(attacks)
        wrong = attempt(scene, operation, attacker, attacks, clock.new_random_id().hex[:12])
        assert not wrong, "\n".join(wrong[:8])

    run()
    return made


@pytest.mark.parametrize("name", FILTERED)
def test_no_random_filter_crosses_a_line(name: str, scene: Scene, record_property: Record) -> None:
    operation = operations()[name]
    attacked(scene, shapes.filters(operation), operation, record_property)


@pytest.mark.parametrize("name", SHAPED)
def test_no_random_values_cross_a_line(name: str, scene: Scene, record_property: Record) -> None:
    operation = operations()[name]
    attacked(scene, shapes.bodies(operation), operation, record_property)
