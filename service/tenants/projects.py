"""A tenant's own settings, which the platform calls a project: what to extract, into which categories, what to review,
and the language of its memories.

Instructions and categories may tell what an organisation cares about, so they are sealed under the tenant's key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from service import clock
from service.audit.events import AuditEvent, Outcome
from service.audit.tenant_details import ProjectField, ProjectRead, ProjectUpdated
from service.audit.trail import Trail
from service.errors import InvalidInput, NotFound
from service.policy.gate import Gate
from service.records import Category
from service.scope import Action, Caller, Scope
from service.settings.languages import Language
from service.storage.database import Database
from service.storage.encryption import Place
from service.tenants.languages import Languages
from service.tenants.subjects import Subjects
from service.tenants.tables import ProjectRow, TenantRow

_projects: Final[Any] = ProjectRow.__table__  # type: ignore[attr-defined]
_tenants: Final[Any] = TenantRow.__table__  # type: ignore[attr-defined]

INSTRUCTIONS_CHARS: Final = 10_000
CATEGORIES: Final = 50
CATEGORY_CHARS: Final = 100
DESCRIPTION_CHARS: Final = 500


@dataclass(frozen=True, slots=True)
class ProjectSettings:
    """What a tenant decides about its memories. With `review_required` extracted ones wait for a reviewer."""

    custom_instructions: str | None = None
    agent_custom_instructions: str | None = None
    custom_categories: Sequence[Category] = ()
    review_required: bool = False

    def instructions_for(self, *, agent_alone: bool) -> str | None:
        """Return the instructions for memories of an agent alone, or for any others."""
        own = self.agent_custom_instructions if agent_alone else None
        return own or self.custom_instructions


@dataclass(frozen=True, slots=True)
class Project:
    """A tenant as its own people see it."""

    id: UUID
    name: str
    settings: ProjectSettings
    language: Language
    created_at: datetime
    updated_at: datetime


class Projects:
    """The settings of the caller's own tenant."""

    def __init__(self, database: Database, subjects: Subjects, trail: Trail, gate: Gate, languages: Languages) -> None:
        self._database = database
        self._subjects = subjects
        self._trail = trail
        self._gate = gate
        self._languages = languages

    def get(self, caller: Caller, scope: Scope, organisation: str, project: str) -> Project:
        """Return the project.

        Raises:
            NotFound: when the two ids are not those of the caller's tenant.
        """
        self._gate.check(caller, Action.GET_PROJECT)
        own = _is_own(scope, organisation, project)
        with self._database.transaction(scope) as connection:
            found = self._project(connection, scope) if own else None
            outcome = Outcome.DONE if found else Outcome.NOT_FOUND
            self._trail.write(connection, caller, AuditEvent.PROJECT_READ, outcome=outcome, detail=ProjectRead())
        if found is None:
            raise NotFound("there is no such project")
        return found

    def update(
        self, caller: Caller, scope: Scope, organisation: str, project: str, changes: dict[ProjectField, Any]
    ) -> Project:
        """Change what is given, if anything, by the name of the setting, and return the project as it is now.

        Raises:
            Forbidden: also for a caller that is bound to users: the settings are everybody's.
            InvalidInput: when a value breaks a limit.
            NotFound: when the two ids are not those of the caller's tenant.
            Conflict: for another language while the words of the memories are still taken anew for the last one.
        """
        self._gate.check(caller, Action.UPDATE_PROJECT)
        self._gate.check_unbound(caller, Action.UPDATE_PROJECT)
        _check(changes)
        own = _is_own(scope, organisation, project)
        changed = None
        conflicts = self._trail.conflicts(caller, Action.UPDATE_PROJECT)
        with conflicts, self._database.transaction(scope) as connection:
            if own:
                # Locked, so that of two changes at once none undoes the other.
                connection.execute(
                    select(_tenants.c.id).where(_tenants.c.id == scope.tenant_id).with_for_update(key_share=True)
                )
                before = self.settings(connection, scope)
                content = {name.value: value for name, value in changes.items() if name is not ProjectField.LANGUAGE}
                if changes:
                    self._store(connection, scope, replace(before, **content))
                if ProjectField.LANGUAGE in changes:
                    self._languages.set(connection, scope.tenant_id, changes[ProjectField.LANGUAGE])
                changed = self._project(connection, scope)
            self._trail.write(
                connection,
                caller,
                AuditEvent.PROJECT_UPDATED,
                outcome=Outcome.DONE if changed else Outcome.NOT_FOUND,
                detail=ProjectUpdated(changed=sorted(changes)),
            )
        if changed is None:
            raise NotFound("there is no such project")
        self._languages.forget(scope.tenant_id)
        return changed

    def settings(self, connection: Connection, scope: Scope) -> ProjectSettings:
        """Return the tenant's settings inside the caller's own transaction; the defaults where none were made."""
        row = connection.execute(select(_projects.c.content, _projects.c.review_required)).first()
        if row is None:
            return ProjectSettings()
        told = self._subjects.tenant_cipher(scope).open_json(row.content, _place(scope))
        categories = tuple(Category(one["name"], one["description"]) for one in told.pop("custom_categories"))
        return ProjectSettings(**told, custom_categories=categories, review_required=row.review_required)

    def _project(self, connection: Connection, scope: Scope) -> Project:
        tenant = connection.execute(select(_tenants).where(_tenants.c.id == scope.tenant_id)).one()
        changed = connection.execute(select(_projects.c.updated_at)).scalar()
        settings = self.settings(connection, scope)
        language = self._languages.read(connection, scope.tenant_id).language
        return Project(tenant.id, tenant.name, settings, language, tenant.created_at, changed or tenant.updated_at)

    def _store(self, connection: Connection, scope: Scope, settings: ProjectSettings) -> None:
        content = {
            "custom_instructions": settings.custom_instructions,
            "agent_custom_instructions": settings.agent_custom_instructions,
            "custom_categories": [
                {"name": one.name, "description": one.description} for one in settings.custom_categories
            ],
        }
        values = {
            "content": self._subjects.tenant_cipher(scope).seal_json(content, _place(scope)),
            "review_required": settings.review_required,
            "updated_at": clock.now(),
        }
        statement = insert(_projects).values(tenant_id=scope.tenant_id, **values)
        connection.execute(statement.on_conflict_do_update(index_elements=["tenant_id"], set_=values))


def _is_own(scope: Scope, organisation: str, project: str) -> bool:
    """Tell whether both ids are the caller's tenant's: an organisation has one project, itself."""
    own = str(scope.tenant_id)
    return organisation.lower() == own and project.lower() == own


def _check(changes: dict[ProjectField, Any]) -> None:
    for name in (ProjectField.CUSTOM_INSTRUCTIONS, ProjectField.AGENT_CUSTOM_INSTRUCTIONS):
        if changes.get(name) is not None:
            _check_text(changes[name], name, INSTRUCTIONS_CHARS)
    categories: Sequence[Category] = changes.get(ProjectField.CUSTOM_CATEGORIES) or ()
    if len(categories) > CATEGORIES:
        raise InvalidInput(f"custom_categories: {CATEGORIES} at most")
    seen = set()
    for number, category in enumerate(categories):
        where = f"custom_categories[{number}]"
        _check_text(category.name, where, CATEGORY_CHARS)
        if not category.name.isprintable():
            raise InvalidInput(f"{where}: a name is one line of printable characters")
        if category.description is not None:
            _check_text(category.description, where, DESCRIPTION_CHARS)
        if category.name.casefold() in seen:
            raise InvalidInput(f"{where}: the name stands twice")
        seen.add(category.name.casefold())


def _check_text(text: str, where: str, most: int) -> None:
    if not text.strip():
        raise InvalidInput(f"{where}: must not be blank")
    if len(text) > most:
        raise InvalidInput(f"{where}: must have {most} characters at most")
    if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidInput(f"{where}: holds a null byte or a lone surrogate")


def _place(scope: Scope) -> Place:
    return Place(scope.tenant_id, "projects", scope.tenant_id, "content")
