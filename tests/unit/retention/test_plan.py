"""The plan against an oracle that is written the other way round, over thousands of random rules and memories."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InvalidInput
from service.filters.ast import EVERYTHING, Any_, Condition, Field, Node, Not, Op
from service.holds.minimum import kept_until
from service.holds.rules import CountedFrom, Rule, RuleAction, RuleBody
from service.holds.spans import Span, read_span
from service.retention.plan import Facts, Planned, Step, decide
from service.scope import PrincipalKind
from service.storage.kept_filters import meets
from service.storage.stored import StoredMemory

pytestmark = pytest.mark.unit

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
LABELS = ("tea", "tax", "log")
DAYS = st.integers(-5, 60)


def labelled(label: str) -> Node:
    """A filter for one label."""
    return Condition(Field.METADATA, Op.EQ, label, ("label",))


MATCHES: st.SearchStrategy[Node] = st.one_of(
    st.just(EVERYTHING),
    st.sampled_from(LABELS).map(labelled),
    st.sampled_from(LABELS).map(lambda label: Not(labelled(label))),
    st.lists(st.sampled_from(LABELS), min_size=1, max_size=2).map(lambda some: Any_(tuple(map(labelled, some)))),
)
SPANS = st.integers(0, 40).map(lambda days: Span(f"P{days}D"))


@st.composite
def rule(draw: st.DrawFn) -> Rule:
    """A rule."""
    action = draw(st.sampled_from(RuleAction))
    body = RuleBody(
        name=draw(st.sampled_from("abcdefgh")) + uuid4().hex[:6],
        where=draw(MATCHES),
        action=action,
        counted_from=draw(st.sampled_from(CountedFrom)),
        age=None if action is RuleAction.KEEP else draw(SPANS),
        grace=draw(st.none() | SPANS) if action is RuleAction.HIDE else None,
        minimum=draw(st.none() | SPANS),
        priority=draw(st.integers(-2, 2)),
    )
    return Rule(uuid4(), 1, body, False, None, PrincipalKind.KEY, NOW)


@st.composite
def facts(draw: st.DrawFn) -> Facts:
    """A memory and what is known of it."""

    def ago(days: int) -> datetime:
        return NOW - timedelta(days=days)

    created = ago(draw(DAYS))
    memory = StoredMemory(
        id=uuid4(),
        # Whatever it is: it does not tell of a change.
        version=draw(st.integers(1, 2)),
        user_id=UUID(int=1),
        agent_id=None,
        app_id=None,
        run_id=None,
        text="",
        metadata={"label": draw(st.sampled_from((*LABELS, "other")))},
        categories=(),
        actor=None,
        role=None,
        inferred=False,
        created_at=created,
        updated_at=draw(st.just(created) | DAYS.map(ago)),
        expires_on=draw(st.none() | DAYS.map(lambda days: ago(days).date())),
        ingested_at=ago(draw(st.integers(0, 60))),
    )
    return Facts(memory, draw(st.none() | DAYS.map(ago)), draw(st.booleans()) and draw(st.booleans()))


def oracle(rules: list[Rule], known: Facts, expired_days: int | None) -> Step | None:
    """What is to be done, by going through the rules from the least to the most and letting later ones win."""
    memory, stored = known.memory, known.memory.ingested_at
    assert stored is not None
    wanted: Step | None = None
    winner: Rule | None = None
    for one in sorted(rules, key=lambda one: (one.body.priority, [-ord(letter) for letter in one.body.name])):
        if meets(one.body.where, memory):
            winner = one
    expired = memory.expires_on is not None and expired_days is not None
    if expired and memory.expires_on is not None and expired_days is not None:
        last = datetime(memory.expires_on.year, memory.expires_on.month, memory.expires_on.day, tzinfo=UTC)
        if last + timedelta(days=1 + expired_days) <= NOW and not (winner and winner.body.action is RuleAction.HIDE):
            wanted = Step.DELETE
    if winner is not None and winner.body.age is not None:
        said = memory.created_at if memory.created_at < stored else stored
        as_added = memory.updated_at == memory.created_at
        changed = said if as_added or memory.updated_at < said else memory.updated_at
        since = {
            CountedFrom.CREATED: said,
            CountedFrom.UPDATED: changed,
            CountedFrom.USED: max(one for one in (changed, stored, known.used_at) if one is not None),
        }[winner.body.counted_from]
        days = (NOW - since) / timedelta(days=1) - int(winner.body.age.text[1:-1])
        if winner.body.action is RuleAction.DELETE and days >= 0:
            wanted = Step.DELETE
        if winner.body.action is RuleAction.HIDE and days >= 0:
            grace = int(winner.body.grace.text[1:-1]) if winner.body.grace else 0
            visible = memory.expires_on is None or memory.expires_on >= NOW.date()
            wanted = Step.DELETE if days >= grace else Step.HIDE if visible else None
    if wanted is Step.DELETE:
        for one in rules:
            minimum = one.body.minimum
            if minimum and meets(one.body.where, memory) and stored + timedelta(int(minimum.text[1:-1])) > NOW:
                wanted = None
    return None if known.held else wanted


@settings(max_examples=3000, deadline=None)
@given(st.lists(rule(), max_size=6), facts(), st.none() | st.integers(0, 30))
def test_the_plan_is_what_the_oracle_says(rules: list[Rule], known: Facts, expired_days: int | None) -> None:
    after = None if expired_days is None else timedelta(days=expired_days)
    planned = decide(rules, known, NOW, expired_after=after)
    assert (planned.step if planned else None) == oracle(rules, known, expired_days)
    if planned is not None:
        assert planned.due_at <= NOW
        assert not known.held
    if planned is not None and planned.rule_id is not None:
        (of,) = [one for one in rules if one.id == planned.rule_id]
        assert meets(of.body.where, known.memory)
    if planned is not None and planned.step is Step.DELETE:
        until = kept_until(rules, known.memory)
        assert until is None or until <= NOW


@settings(max_examples=500, deadline=None)
@given(st.lists(rule(), max_size=6), facts())
def test_nothing_comes_back_with_time(rules: list[Rule], known: Facts) -> None:
    """What is due stays due while nothing else changes: a run that is late deletes no less."""
    planned = decide(rules, known, NOW, expired_after=None)
    later = decide(rules, known, NOW + timedelta(days=400), expired_after=None)
    if isinstance(planned, Planned) and planned.step is Step.DELETE:
        assert later is not None


def test_no_rule_touches_nothing() -> None:
    memory = StoredMemory(
        uuid4(),
        1,
        UUID(int=1),
        None,
        None,
        None,
        "",
        {},
        (),
        None,
        None,
        False,
        NOW,
        NOW,
        date(2000, 1, 1),
        ingested_at=NOW,
    )
    assert decide([], Facts(memory), NOW, expired_after=None) is None


@settings(max_examples=200, deadline=None)
@given(st.lists(rule(), max_size=3), facts(), st.dates(), st.integers(0, 36_500))
def test_no_day_of_the_calendar_stops_the_plan(
    rules: list[Rule], known: Facts, expires_on: date, expired_days: int
) -> None:
    for day in (expires_on, date.min, date.max):
        decide(
            rules,
            replace(known, memory=replace(known.memory, expires_on=day)),
            NOW,
            expired_after=timedelta(days=expired_days),
        )


def test_what_expires_at_the_end_of_the_calendar_is_not_due() -> None:
    memory = StoredMemory(
        uuid4(), 1, UUID(int=1), None, None, None, "", {}, (), None, None, False, NOW, NOW, date.max, ingested_at=NOW
    )
    assert decide([], Facts(memory), NOW, expired_after=timedelta(days=30)) is None


@pytest.mark.parametrize("text", ["", "30", "P", "P-1D", "-P1D", "30D", "P1000Y", "P1H", "x" * 99, "P1DT", "PT1H "])
def test_a_span_that_cannot_be_understood_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        read_span(text, "age")


def test_spans_are_the_calendar_s() -> None:
    start = datetime(2024, 1, 31, tzinfo=UTC)
    assert read_span("P1M", "age").after(start) == datetime(2024, 2, 29, tzinfo=UTC)
    assert read_span("PT36H", "age").after(start) == datetime(2024, 2, 1, 12, tzinfo=UTC)
    assert read_span("P200Y", "age").after(datetime(9990, 1, 1, tzinfo=UTC)).year == 9999


@given(
    hours=st.integers(0, 1_000_000),
    span=st.builds(
        lambda years, months, days, rest: Span(f"P{years}Y{months}M{days}DT{rest}H"),
        *(st.integers(0, most) for most in (30, 40, 60, 100)),
    ),
)
def test_nothing_is_due_before_the_shortest_time_of_a_span(hours: int, span: Span) -> None:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(hours=hours)
    assert moment + span.shortest <= span.after(moment)


def test_the_shortest_time_of_a_span_leaves_out_little() -> None:
    assert {text: Span(text).shortest.days for text in ("P30D", "P1M", "P2Y", "P1Y2M3D")} == {
        "P30D": 30,
        "P1M": 28,
        "P2Y": 730,
        "P1Y2M3D": 424,
    }
    assert Span("PT12H").shortest == timedelta(hours=12)
