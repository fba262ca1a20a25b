"""What OAuth clients are told: this resource's metadata (RFC 9728), and the challenges that point to it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.auth.scopes import ScopeNames
from service.mcp.tools import TOOLS
from service.policy.table import NEEDS, ROLES
from service.settings import Settings

_WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"
_REALM: Final = 'Bearer realm="memvault"'
#: Public, the same for everybody and changed by a restart only; read by clients in a browser too.
_HEADERS: Final = {"Cache-Control": "public, max-age=300", "Access-Control-Allow-Origin": "*"}


class ProtectedResource:
    """The MCP endpoint as an OAuth resource. Without an issuer in the settings it has no metadata."""

    def __init__(self, settings: Settings, path: str) -> None:
        oidc = settings.auth.oidc
        self._scopes = ScopeNames(oidc.scope_map)
        self._issuer = oidc.issuer
        self._resource = f"{settings.server.public_url}{path}"
        self._path = path

    @property
    def routes(self) -> list[Route]:
        """The metadata at the root of the host, and at the path that RFC 9728 makes of the endpoint's URL."""
        if self._issuer is None:
            return []
        # Behind a proxy that serves us below a path, the inserted form has that path too.
        inserted = {f"{_WELL_KNOWN}{self._path}", f"{_WELL_KNOWN}{urlsplit(self._resource).path}"}
        return [
            Route(path, self._answer, methods=["GET"], include_in_schema=False)
            for path in (_WELL_KNOWN, *sorted(inserted))
        ]

    def unauthorized(self, *, invalid: bool) -> str:
        """Return the challenge of a 401: where the metadata is and what an agent needs; `invalid` if a secret came."""
        error = ("error", "invalid_token" if invalid else None)
        if self._issuer is None:
            return _header(error)
        scopes = " ".join(self._scopes.names(ROLES["agent"]))
        return _header(error, ("resource_metadata", self._metadata_url()), ("scope", scopes))

    def forbidden(self, scopes: Iterable[str]) -> str:
        """Return the challenge of a 403: all scopes at once that the call needs and the token lacks."""
        return _header(
            ("error", "insufficient_scope"),
            ("resource_metadata", self._metadata_url()),
            ("scope", " ".join(scopes)),
        )

    def malformed(self) -> str:
        """Return the challenge of a 400: the token came in a way that is not allowed."""
        where = None if self._issuer is None else self._metadata_url()
        return _header(("error", "invalid_request"), ("resource_metadata", where))

    def _metadata_url(self) -> str:
        parts = urlsplit(self._resource)
        return f"{parts.scheme}://{parts.netloc}{_WELL_KNOWN}{parts.path}"

    async def _answer(self, request: Request) -> Response:
        needed = (NEEDS[tool.action] for tool in TOOLS.values())
        document = {
            "resource": self._resource,
            "authorization_servers": [self._issuer],
            "scopes_supported": list(self._scopes.names(one for one in needed if one is not None)),
            "bearer_methods_supported": ["header"],
            "resource_name": "Memvault",
        }
        return JSONResponse(document, headers=_HEADERS)


def _header(*parameters: tuple[str, str | None]) -> str:
    return ", ".join([_REALM, *(f'{name}="{value}"' for name, value in parameters if value)])
