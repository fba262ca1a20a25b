"""The plan: what the rules and the expiration date say is to be done with one memory now. Pure: no clock, no store.

Of the rules that match a memory the one of the highest priority says what becomes of it (of the same priority, the
first by name). Every rule that matches and has a minimum keeps it from deletion. Above all stands a legal hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum
from uuid import UUID

from service.holds.minimum import kept_until
from service.holds.rules import CountedFrom, Rule, RuleAction
from service.storage.kept_filters import meets
from service.storage.stored import StoredMemory


class Step(StrEnum):
    """What is done with a memory."""

    DELETE = "delete"
    HIDE = "hide"


@dataclass(frozen=True, slots=True)
class Planned:
    """One thing to do, by which version of which rule (none: by the memory's own expiration date), due since when."""

    memory_id: UUID
    step: Step
    due_at: datetime
    rule_id: UUID | None = None
    rule_version: int | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What the plan must know of a memory beside the memory: when it was last shown, and whether a hold covers it."""

    memory: StoredMemory
    used_at: datetime | None = None
    held: bool = False


def decide(rules: Sequence[Rule], facts: Facts, now: datetime, *, expired_after: timedelta | None) -> Planned | None:
    """Return what is to be done with one memory, or None."""
    memory = facts.memory
    if facts.held:
        return None
    matching = [rule for rule in rules if meets(rule.body.where, memory)]
    first = min(matching, key=lambda rule: (-rule.body.priority, rule.body.name), default=None)
    planned = _by_rule(first, facts, now)
    hiding = first is not None and first.body.action is RuleAction.HIDE
    if planned is None and not hiding and memory.expires_on is not None and expired_after is not None:
        ended = datetime.combine(memory.expires_on, time.max, UTC)
        # From this side: a day near the end of the calendar has no moment so long after it.
        if ended < now - expired_after:
            planned = Planned(memory.id, Step.DELETE, ended + expired_after)
    if planned is not None and planned.step is Step.DELETE:
        until = kept_until(matching, memory)
        if until is not None and until > now:
            return None
    return planned


def _by_rule(rule: Rule | None, facts: Facts, now: datetime) -> Planned | None:
    if rule is None or rule.body.age is None or rule.body.action is RuleAction.KEEP:
        return None
    due = rule.body.age.after(_counted(rule.body.counted_from, facts))
    step = Step.DELETE
    if rule.body.action is RuleAction.HIDE:
        gone = due if rule.body.grace is None else rule.body.grace.after(due)
        if now < gone:
            ends = facts.memory.expires_on
            if ends is not None and ends < now.date():
                return None
            step = Step.HIDE
        else:
            due = gone
    return Planned(facts.memory.id, step, due, rule.id, rule.version) if due <= now else None


def _counted(counted_from: CountedFrom, facts: Facts) -> datetime:
    memory = facts.memory
    stored = memory.ingested_at or memory.created_at
    # Said in the future, so that it would never grow old: what is not earlier than its storing counts from that.
    created = min(memory.created_at, stored)
    # The version does not tell whether it was changed: a source may not say how often, and hiding counts it up. An add
    # gives both times what its caller said; a change gives the second this installation's clock, which no caller moves.
    unchanged = memory.updated_at == memory.created_at
    updated = created if unchanged else max(memory.updated_at, created)
    match counted_from:
        case CountedFrom.CREATED:
            return created
        case CountedFrom.UPDATED:
            return updated
        case CountedFrom.USED:
            return max(updated, stored, facts.used_at or updated)
