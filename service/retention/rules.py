"""Setting, changing, reading and removing the retention rules of a tenant; each change is a version with its author."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from sqlalchemy import Connection

from service import clock
from service.audit.details import RetentionRuleChanged, RetentionRulesRead
from service.audit.events import AuditEvent, Outcome
from service.audit.trail import Trail
from service.errors import InvalidInput, NameTaken, NotFound
from service.holds.rules import Rule, RuleAction, RuleBody, Rules
from service.policy.gate import Gate
from service.retention.ledger import Ledger
from service.retention.pinning import pin
from service.scope import SERVICE_ID, Action, Caller, Scope
from service.storage.database import Database
from service.storage.kept_filters import pinned_subjects, unpinned
from service.storage.keyring import Keyring
from service.tenants.subjects import Subjects

# The class below has a method of the name `list`.
Texts = list[str]
Made = list[Rule]
_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
_MOST_RULES: Final = 200
_PRIORITIES: Final = range(-1000, 1001)


@dataclass(frozen=True, slots=True)
class Applied:
    """What the application of a set of rules did to each, by name."""

    rules: Sequence[Rule]
    created: Sequence[str]
    changed: Sequence[str]
    unchanged: Sequence[str]


class RetentionRules:
    """The rules of a tenant, for whoever may manage retention."""

    def __init__(self, database: Database, keyring: Keyring, subjects: Subjects, trail: Trail, gate: Gate) -> None:
        self._database = database
        self._subjects = subjects
        self._trail = trail
        self._gate = gate
        self._rules = Rules(keyring)

    def create(self, caller: Caller, scope: Scope, body: RuleBody) -> Rule:
        """Add a rule.

        Raises:
            InvalidInput: for a body that makes no sense.
            NameTaken: when the tenant has a rule of that name.
        """
        self._check(caller, Action.SET_RETENTION_RULE)
        check_body(body)
        with self._conflicts(caller), self._database.transaction(scope) as connection:
            self._rules.lock(connection, scope)
            rule = self._write(connection, caller, scope, clock.new_id(), 1, body)
        return self._told(scope, rule)

    def change(self, caller: Caller, scope: Scope, rule_id: UUID, body: RuleBody) -> Rule:
        """Give a rule a new version.

        Raises:
            InvalidInput, NameTaken: as `create`.
            NotFound: when the tenant has no such rule.
        """
        self._check(caller, Action.SET_RETENTION_RULE, targets=[rule_id])
        check_body(body)
        rule = None
        with self._conflicts(caller, rule_id), self._database.transaction(scope) as connection:
            self._rules.lock(connection, scope)
            before = self._live(connection, scope, rule_id)
            if before is not None:
                rule = self._write(connection, caller, scope, rule_id, before.version + 1, body)
            else:
                self._not_found(connection, caller, AuditEvent.RETENTION_RULE_SET, rule_id)
        if rule is None:
            raise NotFound("there is no such retention rule")
        return self._told(scope, rule)

    def remove(self, caller: Caller, scope: Scope, rule_id: UUID) -> None:
        """Let a rule count no more; its versions stay.

        Raises:
            NotFound: when the tenant has no such rule.
        """
        self._check(caller, Action.REMOVE_RETENTION_RULE, targets=[rule_id])
        with self._database.transaction(scope) as connection:
            self._rules.lock(connection, scope)
            before = self._live(connection, scope, rule_id)
            if before is not None:
                self._write(connection, caller, scope, rule_id, before.version + 1, before.body, removed=True)
            else:
                self._not_found(connection, caller, AuditEvent.RETENTION_RULE_REMOVED, rule_id)
        if before is None:
            raise NotFound("there is no such retention rule")

    def list(self, caller: Caller, scope: Scope) -> Sequence[Rule]:
        """Return the rules that count, those of the highest priority first."""
        self._check(caller, Action.LIST_RETENTION_RULES)
        with self._database.transaction(scope) as connection:
            rules = self._rules.current(connection, scope)
            ids = [rule.id for rule in rules]
            self._trail.write(
                connection,
                caller,
                AuditEvent.RETENTION_RULES_READ,
                targets=ids,
                detail=RetentionRulesRead(rules=len(rules)),
            )
        return [self._told(scope, rule) for rule in rules]

    def versions(self, caller: Caller, scope: Scope, rule_id: UUID) -> Sequence[Rule]:
        """Return every version of a rule, the newest first, of a removed one too.

        Raises:
            NotFound: when the tenant never had such a rule.
        """
        self._check(caller, Action.LIST_RETENTION_RULES, targets=[rule_id])
        with self._database.transaction(scope) as connection:
            found = self._rules.versions(connection, scope, rule_id)
            self._trail.write(
                connection,
                caller,
                AuditEvent.RETENTION_RULES_READ,
                targets=[rule_id],
                outcome=Outcome.DONE if found else Outcome.NOT_FOUND,
                detail=RetentionRulesRead(rules=len(found)),
            )
        if not found:
            raise NotFound("there is no such retention rule")
        return [self._told(scope, rule) for rule in found]

    def apply(self, caller: Caller, scope: Scope, bodies: Sequence[RuleBody]) -> Applied:
        """Set rules by their names, in one transaction: new ones are added, other ones of a name get a new version.

        Raises:
            InvalidInput: for a body that makes no sense, or two of one name.
        """
        self._check(caller, Action.SET_RETENTION_RULE)
        for body in bodies:
            check_body(body)
        names = [body.name for body in bodies]
        if len(set(names)) != len(names):
            raise InvalidInput("rules: two of them have the same name")
        created: Texts = []
        changed: Texts = []
        unchanged: Texts = []
        rules: Made = []
        with self._conflicts(caller), self._database.transaction(scope) as connection:
            self._rules.lock(connection, scope)
            there = {rule.body.name: rule for rule in self._rules.current(connection, scope)}
            for body in bodies:
                before = there.get(body.name)
                pinned_body = self._pinned(connection, scope, body)
                if before is not None and before.body == pinned_body:
                    unchanged.append(body.name)
                    rules.append(before)
                    continue
                (created if before is None else changed).append(body.name)
                rule_id, version = (clock.new_id(), 1) if before is None else (before.id, before.version + 1)
                rules.append(self._write(connection, caller, scope, rule_id, version, body))
        return Applied([self._told(scope, rule) for rule in rules], created, changed, unchanged)

    def _check(self, caller: Caller, action: Action, *, targets: Sequence[UUID] = ()) -> None:
        self._gate.check(caller, action, targets=targets)
        self._gate.check_unbound(caller, action)

    def _conflicts(self, caller: Caller, *targets: UUID) -> AbstractContextManager[None]:
        return self._trail.conflicts(caller, Action.SET_RETENTION_RULE, targets=targets)

    def _live(self, connection: Connection, scope: Scope, rule_id: UUID) -> Rule | None:
        versions = self._rules.versions(connection, scope, rule_id)
        return versions[0] if versions and not versions[0].removed else None

    def _write(
        self,
        connection: Connection,
        caller: Caller,
        scope: Scope,
        rule_id: UUID,
        version: int,
        body: RuleBody,
        *,
        removed: bool = False,
    ) -> Rule:
        current = self._rules.current(connection, scope)
        others = [rule for rule in current if rule.id != rule_id]
        if any(rule.id == rule_id and rule.body.minimum is not None for rule in current):
            # It may have put erasures off that nothing keeps any more.
            Ledger.look_again(connection, scope)
        if not removed:
            if any(rule.body.name == body.name for rule in others):
                raise NameTaken("name: another rule has it")
            if len(others) >= _MOST_RULES:
                raise InvalidInput(f"a tenant has {_MOST_RULES} rules at most: remove one first")
            body = self._pinned(connection, scope, body)
        principal = caller.principal
        rule = self._rules.write(
            connection,
            scope,
            rule_id,
            version,
            body,
            removed=removed,
            changed_by=None if principal.id == SERVICE_ID else principal.id,
            changed_kind=principal.kind,
        )
        if removed:
            self._trail.write(connection, caller, AuditEvent.RETENTION_RULE_REMOVED, targets=[rule_id])
        else:
            detail = RetentionRuleChanged(version=version)
            self._trail.write(connection, caller, AuditEvent.RETENTION_RULE_SET, targets=[rule_id], detail=detail)
        return rule

    def _pinned(self, connection: Connection, scope: Scope, body: RuleBody) -> RuleBody:
        return replace(body, where=pin(connection, scope, self._subjects, body.where))

    def _told(self, scope: Scope, rule: Rule) -> Rule:
        """Return a rule with the names of who still exists in its filter."""
        ids = pinned_subjects(rule.body.where)
        if not ids:
            return rule
        with self._database.transaction(scope) as connection:
            names = self._subjects.names(connection, scope, ids)
        return replace(rule, body=replace(rule.body, where=unpinned(rule.body.where, names)))

    def _not_found(self, connection: Connection, caller: Caller, event: AuditEvent, rule_id: UUID) -> None:
        detail = RetentionRuleChanged() if event is AuditEvent.RETENTION_RULE_SET else None
        self._trail.write(connection, caller, event, targets=[rule_id], outcome=Outcome.NOT_FOUND, detail=detail)


def check_body(body: RuleBody) -> None:
    """Raise InvalidInput for a rule that makes no sense."""
    if not _NAME.fullmatch(body.name):
        raise InvalidInput("name: 1 to 64 of a-z, 0-9, '.', '_' and '-', a letter or digit at both ends")
    if body.priority not in _PRIORITIES:
        raise InvalidInput("priority: must be from -1000 to 1000")
    if body.grace is not None and body.action is not RuleAction.HIDE:
        raise InvalidInput("grace: goes with the action hide only")
    if body.action is RuleAction.KEEP and body.age is not None:
        raise InvalidInput("age: does not go with the action keep, which never ends; use minimum for a term")
    if body.action is not RuleAction.KEEP and body.age is None:
        raise InvalidInput(f"age: is needed for the action {body.action.value}")
