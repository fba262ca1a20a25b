"""The retention rules of a tenant: append-only versions, of which the newest of each rule counts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, func, insert, select
from sqlalchemy.dialects.postgresql import distinct_on

from service import clock
from service.filters.ast import EVERYTHING, Node
from service.holds.spans import Span
from service.holds.tables import RetentionRuleRow
from service.scope import PrincipalKind, Scope
from service.storage.encryption import Place
from service.storage.kept_filters import open_filter, seal_filter
from service.storage.keyring import Keyring

_rules: Final[Any] = RetentionRuleRow.__table__  # type: ignore[attr-defined]


class RuleAction(StrEnum):
    """What becomes of a memory of that age: deleted; hidden, then deleted; kept from rules of less priority."""

    DELETE = "delete"
    HIDE = "hide"
    KEEP = "keep"


class CountedFrom(StrEnum):
    """From when a memory's age counts: when it was said or stored (the earlier), last changed, or last shown."""

    CREATED = "created"
    UPDATED = "updated"
    USED = "used"


@dataclass(frozen=True, slots=True)
class RuleBody:
    """What a rule says. `grace` goes with `hide`; `minimum` keeps what matches from every deletion until then."""

    name: str
    where: Node = EVERYTHING
    action: RuleAction = RuleAction.DELETE
    counted_from: CountedFrom = CountedFrom.CREATED
    age: Span | None = None
    grace: Span | None = None
    minimum: Span | None = None
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """One version of a rule: what it says, and who said so when. A removed one counts no more."""

    id: UUID
    version: int
    body: RuleBody
    removed: bool
    changed_by: UUID | None
    changed_kind: PrincipalKind
    changed_at: datetime


class Rules:
    """Reads and writes rules. Every method works inside the caller's transaction."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def lock(self, connection: Connection, scope: Scope) -> None:
        """Let nobody else change the tenant's rules until this transaction ends."""
        name = f"memvault.rules/{scope.tenant_id}"
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(name, 0))))

    def current(self, connection: Connection, scope: Scope) -> list[Rule]:
        """Return the rules that count, those of the highest priority first."""
        newest = (
            select(_rules)
            .where(_rules.c.tenant_id == scope.tenant_id)
            .ext(distinct_on(_rules.c.id))
            .order_by(_rules.c.id, _rules.c.version.desc())
        )
        rules = [self._opened(scope, row) for row in connection.execute(newest)]
        return sorted((one for one in rules if not one.removed), key=lambda one: (-one.body.priority, one.body.name))

    def versions(self, connection: Connection, scope: Scope, rule_id: UUID) -> list[Rule]:
        """Return every version of a rule, the newest first; none when there is no such rule."""
        query = select(_rules).where(_rules.c.tenant_id == scope.tenant_id, _rules.c.id == rule_id)
        return [self._opened(scope, row) for row in connection.execute(query.order_by(_rules.c.version.desc()))]

    def has_minimum(self, connection: Connection, scope: Scope) -> bool:
        """Tell whether any version of any rule has a minimum; cheap enough for every delete."""
        query = select(_rules.c.id).where(_rules.c.tenant_id == scope.tenant_id, _rules.c.minimum.is_not(None)).limit(1)
        return connection.execute(query).first() is not None

    def write(
        self,
        connection: Connection,
        scope: Scope,
        rule_id: UUID,
        version: int,
        body: RuleBody,
        *,
        removed: bool,
        changed_by: UUID | None,
        changed_kind: PrincipalKind,
    ) -> Rule:
        """Add a version and return it."""
        moment = clock.now()
        connection.execute(
            insert(_rules).values(
                tenant_id=scope.tenant_id,
                id=rule_id,
                version=version,
                name=body.name,
                match=seal_filter(self._keyring, scope, body.where, _place(scope, rule_id)),
                action=body.action.value,
                counted_from=body.counted_from.value,
                age=body.age.text if body.age else None,
                grace=body.grace.text if body.grace else None,
                minimum=body.minimum.text if body.minimum else None,
                priority=body.priority,
                removed=removed,
                changed_by=changed_by,
                changed_kind=changed_kind.value,
                changed_at=moment,
            )
        )
        return Rule(rule_id, version, body, removed, changed_by, changed_kind, moment)

    def _opened(self, scope: Scope, row: Any) -> Rule:
        body = RuleBody(
            name=row.name,
            where=open_filter(self._keyring, scope, row.match, _place(scope, row.id)),
            action=RuleAction(row.action),
            counted_from=CountedFrom(row.counted_from),
            age=_span(row.age),
            grace=_span(row.grace),
            minimum=_span(row.minimum),
            priority=row.priority,
        )
        kind = PrincipalKind(row.changed_kind)
        return Rule(row.id, row.version, body, row.removed, row.changed_by, kind, row.changed_at)


def _span(text: str | None) -> Span | None:
    return None if text is None else Span(text)


def _place(scope: Scope, rule_id: UUID) -> Place:
    return Place(scope.tenant_id, "retention_rules", rule_id, "match")
