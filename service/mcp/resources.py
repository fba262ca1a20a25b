"""The resource `memory://users/{user_id}`: what is remembered about a user, as Markdown, page by page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote_to_bytes

from mcp import types
from mcp.shared.uri_template import UriTemplate

from service import clock
from service.errors import InvalidInput, NotFound
from service.filters.build import subjects_filter
from service.memories.context import source
from service.memories.limits import check_names
from service.records import Memory, Page, SubjectNames
from service.scope import Action, Caller, SubjectKind
from service.wiring import Services

_TEMPLATE: Final = UriTemplate.parse("memory://users/{user_id}{?page}")
_MARKDOWN: Final = "text/markdown"
_PAGE_SIZE: Final = 50
_MOST_PAGES: Final = 1_000_000
_MOST_LISTED: Final = 100
_CURSOR: Final = "users-{}"
_GIVEN: Final = re.compile(r"users-([1-9][0-9]{0,6})", re.ASCII)

TEMPLATE: Final = types.ResourceTemplate(
    name="user_profile",
    title="Profile of a user",
    uri_template=str(_TEMPLATE.template),
    description=f"What is remembered about a user, the newest first, as Markdown; {_PAGE_SIZE} memories a page.",
    mime_type=_MARKDOWN,
)


def resources_of(services: Services, caller: Caller, number: int) -> tuple[list[types.Resource], str | None]:
    """Return one page of the profiles that a caller can read, and the cursor of the next page, if there is one.

    Those of the users that its key is bound to; else those of the tenant's users, by the same action as list_entities.
    A page of these may be shorter than others, since agents, apps and runs are counted with them.
    """
    bound_to = caller.principal.users
    if bound_to is not None:
        users = sorted(bound_to)
        names, total = users[(number - 1) * _MOST_LISTED : number * _MOST_LISTED], len(users)
    else:
        page = services.entities.list(caller, caller.scope, page=number, size=_MOST_LISTED)
        names, total = [one.name for one in page.items if one.kind is SubjectKind.USER], page.total
    cursor = _CURSOR.format(number + 1) if number * _MOST_LISTED < total else None
    return [_profile(name) for name in names], cursor


def page_of(cursor: str | None) -> int:
    """Return the page of the list of resources that a cursor stands for.

    Raises:
        InvalidInput: for one that this service never gave out.
    """
    if cursor is None:
        return 1
    found = _GIVEN.fullmatch(cursor)
    if found is None:
        raise InvalidInput("it is none that this list gave out; begin without one")
    return int(found[1])


def _profile(user: str) -> types.Resource:
    # Programs show the title, older ones the name: both tell one profile from the next.
    shown = _on_a_line(user)
    return types.Resource(
        name=shown,
        title=f"Profile of {shown}",
        uri=_TEMPLATE.expand({"user_id": user}),
        description="What is remembered about this user.",
        mime_type=_MARKDOWN,
    )


def read(services: Services, caller: Caller, uri: str) -> types.TextResourceContents:
    """Return one page of a user's profile.

    Raises:
        Forbidden: to who may not list memories.
        NotFound: for a URI that is no profile's.
        InvalidInput: for a name in it that no user can have.
    """
    # Before the URI is looked at, so that a refusal is in the trail however it is asked for.
    services.installation.gate.check(caller, Action.LIST)
    user_id, number = _parsed(uri)
    user = SubjectNames(user_id=user_id)
    check_names(user)
    where = subjects_filter(user)
    page = services.memories.list(caller, caller.scope, where, page=number, size=_PAGE_SIZE, on=clock.today())
    return types.TextResourceContents(uri=uri, mime_type=_MARKDOWN, text=_markdown(user_id, page))


def user_of(uri: str) -> str | None:
    """Return the user whose profile a URI stands for, or None when it is no profile's."""
    found = _matched(uri).get("user_id")
    return found if isinstance(found, str) else None


def _matched(uri: str) -> Mapping[str, object]:
    """Return what a URI says, or nothing of one that is not UTF-8: its name would be read as another user's."""
    try:
        unquote_to_bytes(uri).decode()
    except UnicodeError:
        return {}
    return _TEMPLATE.match(uri) or {}


def _parsed(uri: str) -> tuple[str, int]:
    found = _matched(uri)
    user_id, page = found.get("user_id"), found.get("page") or "1"
    if not isinstance(user_id, str) or not user_id:
        raise NotFound(f"there is no such resource; resources are {_TEMPLATE.template}")
    if not isinstance(page, str) or not page.isascii() or not page.isdigit() or not 1 <= int(page[:9]) <= _MOST_PAGES:
        raise NotFound(f"page: must be a number from 1 to {_MOST_PAGES}")
    return user_id, int(page[:9])


def _markdown(user_id: str, page: Page[Memory]) -> str:
    pages = max(1, -(-page.total // page.size))
    lines = [
        f"# Memories of {_on_a_line(user_id)}",
        "",
        f"{page.total} memories, page {page.number} of {pages}.",
        "",
    ]
    for memory in page.items:
        origin = "/".join(part for key in ("connector", "channel") if (part := source(memory, key)) is not None)
        facts = ", ".join(part for part in (memory.created_at.date().isoformat(), origin, f"`{memory.id}`") if part)
        lines.append(f"- {_on_a_line(memory.text)} ({_on_a_line(facts)})")
    if page.number < pages:
        following = _TEMPLATE.expand({"user_id": user_id, "page": str(page.number + 1)})
        lines += ["", f"Next page: {following}"]
    return "\n".join(lines) + "\n"


def _on_a_line(text: str) -> str:
    return " ".join(text.split())
