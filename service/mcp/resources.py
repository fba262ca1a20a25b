"""The resource `memory://users/{user_id}`: what is remembered about a user, as Markdown, page by page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from mcp import types
from mcp.shared.uri_template import UriTemplate

from service import clock
from service.errors import NotFound
from service.filters.build import subjects_filter
from service.memories.context import source
from service.records import Memory, Page, SubjectNames
from service.scope import Caller, Principal
from service.wiring import Services

_TEMPLATE: Final = UriTemplate.parse("memory://users/{user_id}{?page}")
_MARKDOWN: Final = "text/markdown"
_PAGE_SIZE: Final = 50
_MOST_PAGES: Final = 1_000_000
_MOST_LISTED: Final = 100

TEMPLATE: Final = types.ResourceTemplate(
    name="user_profile",
    title="Profile of a user",
    uri_template=str(_TEMPLATE.template),
    description=f"What is remembered about a user, the newest first, as Markdown; {_PAGE_SIZE} memories a page.",
    mime_type=_MARKDOWN,
)


def resources_of(principal: Principal) -> Iterator[types.Resource]:
    """Yield the profiles that a principal is bound to; others are reached through the template."""
    for user in sorted(principal.users or ())[:_MOST_LISTED]:
        yield types.Resource(
            name="user_profile",
            title="Profile of a user",
            uri=_TEMPLATE.expand({"user_id": user}),
            description="What is remembered about this user.",
            mime_type=_MARKDOWN,
        )


def read(services: Services, caller: Caller, uri: str) -> types.TextResourceContents:
    """Return one page of a user's profile.

    Raises:
        NotFound: for a URI that is no profile's.
    """
    user_id, number = _parsed(uri)
    where = subjects_filter(SubjectNames(user_id=user_id))
    page = services.memories.list(caller, caller.scope, where, page=number, size=_PAGE_SIZE, on=clock.today())
    return types.TextResourceContents(uri=uri, mime_type=_MARKDOWN, text=_markdown(user_id, page))


def _parsed(uri: str) -> tuple[str, int]:
    found = _TEMPLATE.match(uri) or {}
    user_id, page = found.get("user_id"), found.get("page") or "1"
    if not isinstance(user_id, str) or not user_id:
        raise NotFound(f"there is no such resource; resources are {_TEMPLATE.template}")
    if not isinstance(page, str) or not page.isascii() or not page.isdigit() or not 1 <= int(page[:9]) <= _MOST_PAGES:
        raise NotFound(f"page: must be a number from 1 to {_MOST_PAGES}")
    return user_id, int(page[:9])


def _markdown(user_id: str, page: Page[Memory]) -> str:
    pages = max(1, -(-page.total // page.size))
    lines = [
        f"# Memories of {' '.join(user_id.split())}",
        "",
        f"{page.total} memories, page {page.number} of {pages}.",
        "",
    ]
    for memory in page.items:
        origin = "/".join(part for key in ("connector", "channel") if (part := source(memory, key)) is not None)
        facts = ", ".join(part for part in (memory.created_at.date().isoformat(), origin, f"`{memory.id}`") if part)
        lines.append(f"- {' '.join(memory.text.split())} ({' '.join(facts.split())})")
    if page.number < pages:
        following = _TEMPLATE.expand({"user_id": user_id, "page": str(page.number + 1)})
        lines += ["", f"Next page: {following}"]
    return "\n".join(lines) + "\n"
