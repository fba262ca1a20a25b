"""Between the wire and the records of retention, pure. The command line prints the same documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.filters.render import as_wire
from service.holds.rules import Rule
from service.retention.plan import Planned
from service.retention.run_ledger import ByRule, Run


def rule_out(rule: Rule) -> dict[str, Any]:
    """Return a version of a rule."""
    body = rule.body
    return {
        "id": str(rule.id),
        "version": rule.version,
        "name": body.name,
        "match": as_wire(body.where),
        "action": body.action.value,
        "counted_from": body.counted_from.value,
        "age": body.age.text if body.age else None,
        "grace": body.grace.text if body.grace else None,
        "minimum": body.minimum.text if body.minimum else None,
        "priority": body.priority,
        "removed": rule.removed,
        "changed_by": str(rule.changed_by) if rule.changed_by else None,
        "changed_at": rule.changed_at.isoformat(),
    }


def run_out(run: Run, by_rule: Sequence[ByRule] | None = None) -> dict[str, Any]:
    """Return a run, with its counts by rule where they are given."""
    return {
        "id": str(run.id),
        "dry_run": run.dry,
        "status": run.status,
        "now": run.now.isoformat(),
        "seen": run.seen,
        "deleted": run.deleted,
        "hidden": run.hidden,
        "asked_by": str(run.asked_by) if run.asked_by else None,
        "started_at": run.started_at.isoformat(),
        "ended_at": run.ended_at.isoformat() if run.ended_at else None,
        "by_rule": None
        if by_rule is None
        else [
            {"rule_id": str(one.rule_id) if one.rule_id else None, "action": one.step.value, "count": one.count}
            for one in by_rule
        ],
    }


def item_out(item: Planned) -> dict[str, Any]:
    """Return what was done with one memory, or would be."""
    return {
        "id": str(item.memory_id),
        "action": item.step.value,
        "rule_id": str(item.rule_id) if item.rule_id else None,
        "rule_version": item.rule_version,
        "due_at": item.due_at.isoformat(),
    }
