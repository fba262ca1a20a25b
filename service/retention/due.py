"""Which memories may have something due, as SQL: a run opens only these, and the plan decides on each of them.

It keeps every memory that the plan would do something with, and errs to more. Most runs find nothing due: to open all
that a tenant has would take as long each hour as reading it all.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, false, or_

from service.filters.lookup import Lookup
from service.holds.rules import Rule, RuleAction
from service.storage.filter_sql import compile_sql
from service.storage.record import memories_table

_m = memories_table.c


def may_be_due(
    rules: Sequence[Rule], lookup: Lookup, now: datetime, *, expired_after: timedelta | None
) -> ColumnElement[bool]:
    """Return the condition on a memory that `plan.decide` may return something for it, with the same arguments."""
    return or_(false(), *_by_rule(rules, lookup, now), *_by_its_own_date(now, expired_after))


def _by_rule(rules: Sequence[Rule], lookup: Lookup, now: datetime) -> list[ColumnElement[bool]]:
    conditions = []
    for body in (rule.body for rule in rules):
        if body.age is None or body.action is RuleAction.KEEP:
            continue
        # From whatever it counts, that is never before it was said or stored, the earlier of the two.
        before = now - body.age.shortest
        old = or_(_m.created_at <= before, _m.ingested_at <= before)
        conditions.append(and_(old, compile_sql(body.where, lookup, memories_table).clause))
    return conditions


def _by_its_own_date(now: datetime, expired_after: timedelta | None) -> list[ColumnElement[bool]]:
    if expired_after is None:
        return []
    return [and_(_m.expires_on.is_not(None), _m.expires_on <= (now - expired_after).date())]
