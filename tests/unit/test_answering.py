"""When a call of the index that fails spares others the wait, and for how long."""

from __future__ import annotations

import pytest

from service.errors import IndexUnavailable
from service.memories import answering
from service.memories.answering import Answering

pytestmark = pytest.mark.unit


class Clock:
    """A clock that a test moves."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that the module goes by."""
    made = Clock()
    monkeypatch.setattr(answering, "clock", made)
    return made


def fails(index: Answering, clock: Clock, *, after: float, meanwhile: bool = False) -> None:
    """Make a call that fails after some seconds; `meanwhile` another is answered."""

    def call() -> None:
        with index.asking():
            clock.now += after / 2
            if meanwhile:
                index.answered()
            clock.now += after / 2
            raise IndexUnavailable("away")

    with pytest.raises(IndexUnavailable):
        call()


def test_a_refusal_costs_nobody_anything(clock: Clock) -> None:
    index = Answering()
    fails(index, clock, after=0.1)
    index.check()


def test_a_call_that_waited_in_vain_tells_the_others_for_some_seconds(clock: Clock) -> None:
    index = Answering()
    fails(index, clock, after=5.0)
    with pytest.raises(IndexUnavailable) as refused:
        index.check()
    assert int(refused.value.headers["Retry-After"]) > 0
    # The upkeep asks again within a second, and waits as long: until then nobody else does.
    clock.now += 6.0
    assert index.rests
    clock.now += 10.0
    index.check()


def test_an_answer_ends_it_at_once(clock: Clock) -> None:
    index = Answering()
    fails(index, clock, after=5.0)
    with index.asking():
        clock.now += 1.0
    index.check()


def test_one_call_that_asks_for_too_much_says_nothing_of_the_index(clock: Clock) -> None:
    index = Answering()
    fails(index, clock, after=5.0, meanwhile=True)
    index.check()


def test_an_engine_of_this_machine_is_slow_and_does_not_hang(clock: Clock) -> None:
    index = Answering(remote=False)
    fails(index, clock, after=5.0)
    index.check()
