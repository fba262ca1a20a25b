"""Routes of a project, which is a tenant: its settings; what belongs to the installation is answered with 501."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from service.api.deps import CallerDep, Mem0Route, ServicesDep, acts
from service.api.errors import errors
from service.api.platform.project_schemas import CategoryIn, ProjectIn, ProjectOut, ProjectUpdatedOut
from service.api.replies import Reply
from service.audit.tenant_details import ProjectField
from service.errors import InvalidInput, NotOffered
from service.records import Category
from service.scope import Action
from service.settings.languages import Language
from service.tenants.projects import Project

router = APIRouter(route_class=Mem0Route, tags=["project"])

_PROJECTS: Final = "/api/v1/orgs/organizations/{org_id}/projects/"
_PROJECT: Final = _PROJECTS + "{project_id}/"
_MEMBERS: Final = _PROJECT + "members/"
#: What the clients of all generations send that is no setting here.
_IGNORED: Final = (
    *("multilingual", "decay", "memory_depth", "usecase_setting", "name", "description"),
    *("retrieval_criteria", "enable_graph", "version", "inclusion_prompt", "exclusion_prompt"),
)

OrgId = Annotated[str, Path(description="`org_id` of `GET /v1/ping/`.")]
ProjectId = Annotated[str, Path(description="`project_id` of `GET /v1/ping/`.")]


@router.get(_PROJECT, summary="Settings of the project", response_model=ProjectOut, responses=errors(404))
@acts(Action.GET_PROJECT)
def get_project(
    caller: CallerDep,
    services: ServicesDep,
    org_id: OrgId,
    project_id: ProjectId,
    fields: Annotated[list[str] | None, Query(description="Only these, one each or joined by commas.")] = None,
) -> Response:
    """Return the settings that the tenant makes for itself. It needs `settings:read`."""
    found = project_out(services.projects.get(caller, caller.scope, org_id, project_id))
    wanted = {name.strip() for field in fields or () for name in field.split(",")}
    return Reply({name: value for name, value in found.items() if not wanted or name in wanted})


@router.patch(
    _PROJECT, summary="Change settings of the project", response_model=ProjectUpdatedOut, responses=errors(404, 409)
)
@acts(Action.UPDATE_PROJECT)
def update_project(
    caller: CallerDep, services: ServicesDep, org_id: OrgId, project_id: ProjectId, body: ProjectIn
) -> Response:
    """Change what is sent. It needs `settings:manage`; the trail keeps the names of the changed settings only."""
    changes = changes_of(body)
    ignored = [name for name in _IGNORED if getattr(body, name) is not None]
    if not changes and not ignored:
        raise InvalidInput(f"nothing to change: give one of {', '.join(ProjectField)}")
    services.projects.update(caller, caller.scope, org_id, project_id, changes)
    answer: dict[str, Any] = {"message": "Project updated"}
    if ignored:
        answer["warnings"] = [f"{name}: ignored; this service has no such setting" for name in ignored]
    return Reply(answer)


@router.get(_PROJECTS, summary="List projects: not offered", responses=errors(501))
@router.post(_PROJECTS, summary="Make a project: not offered", responses=errors(501))
@acts(None)
def projects(caller: CallerDep, org_id: OrgId) -> Response:
    """Answer 501: tenants belong to the installation, not to a key."""
    raise NotOffered(
        "projects are tenants, which belong to the installation: `memvault tenant list` and `memvault tenant create`"
    )


@router.delete(_PROJECT, summary="Delete the project: not offered", responses=errors(501))
@acts(None)
def delete_project(caller: CallerDep, org_id: OrgId, project_id: ProjectId) -> Response:
    """Answer 501: no key can remove a tenant."""
    raise NotOffered("a project is a tenant, which no key can remove: `memvault tenant suspend` stops its keys")


@router.get(_MEMBERS, summary="List members: not offered", responses=errors(501))
@router.post(_MEMBERS, summary="Add a member: not offered", responses=errors(501))
@router.put(_MEMBERS, summary="Change a member: not offered", responses=errors(501))
@router.delete(_MEMBERS, summary="Remove a member: not offered", responses=errors(501))
@acts(None)
def members(caller: CallerDep, org_id: OrgId, project_id: ProjectId) -> Response:
    """Answer 501: keys say who may do what."""
    raise NotOffered(
        "there are no members: who may do what is said by keys, made with `memvault key create` or POST /v1/keys/"
    )


def project_out(project: Project) -> dict[str, Any]:
    """Return a project with its settings."""
    settings = project.settings
    return {
        "id": str(project.id),
        "name": project.name,
        "custom_instructions": settings.custom_instructions,
        "agent_custom_instructions": settings.agent_custom_instructions,
        "custom_categories": [
            one.name if one.description is None else {one.name: one.description} for one in settings.custom_categories
        ],
        "review_required": settings.review_required,
        "language": project.language.value,
        "created_at": project.created_at.isoformat(),
        "updated_at": project.updated_at.isoformat(),
    }


def changes_of(body: ProjectIn) -> dict[ProjectField, Any]:
    """Return the settings that a body changes, by name.

    Raises:
        InvalidInput: for a null where there must be a value, and for a language that keyword search does not know.
    """
    changes = {name: getattr(body, name.value) for name in ProjectField if name.value in body.model_fields_set}
    for text in (ProjectField.CUSTOM_INSTRUCTIONS, ProjectField.AGENT_CUSTOM_INSTRUCTIONS):
        if changes.get(text) == "":
            # Mem0's Python clients cannot send null.
            changes[text] = None
    if ProjectField.CUSTOM_CATEGORIES in changes:
        changes[ProjectField.CUSTOM_CATEGORIES] = _categories(body.custom_categories or [])
    if changes.get(ProjectField.REVIEW_REQUIRED, False) is None:
        raise InvalidInput("review_required: must be true or false")
    if changes.get(ProjectField.LANGUAGE) is not None:
        changes[ProjectField.LANGUAGE] = _language(changes[ProjectField.LANGUAGE])
    return changes


def _language(name: str) -> Language:
    try:
        return Language(name)
    except ValueError:
        raise InvalidInput(f"language: must be one of {', '.join(Language)}") from None


def _categories(given: list[CategoryIn]) -> tuple[Category, ...]:
    found: list[Category] = []
    for one in given:
        if isinstance(one, str):
            found.append(Category(one))
        else:
            found += [Category(name, description or None) for name, description in one.items()]
    return tuple(found)
