"""The order of a storm, drawn from its seed: which fault comes after how many calls, to whom, and how long after."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Orders:
    """What a storm is drawn from, and for how long it blows: minutes, or a short one."""

    seed: int
    minutes: float | None
    node: str

    @property
    def again(self) -> str:
        """The command that lets the same storm blow again."""
        length = f" --faults-minutes {self.minutes:g}" if self.minutes else ""
        return f"pytest -n0 '{self.node}' --faults-seed {self.seed}{length}"


@dataclass(frozen=True)
class Fault:
    """One fault: it comes `after` so many more calls were begun, and `delay` seconds later."""

    after: int
    delay: float
    kind: str
    target: int
    #: How many calls are begun while what was taken away is away.
    lasts: int


def draw(orders: Orders, once: Mapping[str, int], weights: Mapping[str, int]) -> Iterator[Fault]:
    """Draw the faults: a short storm has each kind so many `once` in a drawn order, a long one goes on by `weights`."""
    chance = random.Random(orders.seed)
    kinds = [kind for kind, count in once.items() for _ in range(count)]
    chance.shuffle(kinds)
    for kind in kinds:
        yield _fault(chance, kind)
    while orders.minutes is not None:
        yield _fault(chance, chance.choices(list(weights), list(weights.values()))[0])


def _fault(chance: random.Random, kind: str) -> Fault:
    return Fault(
        after=chance.randint(3, 40),
        delay=chance.choice([0.0, chance.uniform(0, 0.05), chance.uniform(0, 1.0)]),
        kind=kind,
        target=chance.randrange(2),
        lasts=chance.randint(5, 25),
    )
