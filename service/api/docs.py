"""The OpenAPI document and a page made from it: plain HTML, since the usual viewers load scripts from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from starlette.responses import HTMLResponse, Response

from service.api.replies import Reply

router = APIRouter(include_in_schema=False)

_METHODS: Final = ("get", "post", "put", "patch", "delete")
_CSP: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "summary{cursor:pointer}code{font-family:ui-monospace,monospace}table{border-collapse:collapse;margin:.5rem 0 1rem}"
    "td,th{border:1px solid #bbb;padding:.2rem .6rem;text-align:left;vertical-align:top}h2{margin-top:2rem}"
)


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """Return the app's OpenAPI document, made once; errors of shape are 400 here, so FastAPI's 422 is taken out."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        for path in document["paths"].values():
            for method in _METHODS:
                path.get(method, {}).get("responses", {}).pop("422", None)
        schemas = document["components"]["schemas"]
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        app.openapi_schema = document
    return app.openapi_schema


@router.get("/openapi.json")
async def openapi_json(request: Request) -> Response:
    """Return the OpenAPI document."""
    return Reply(request.app.openapi())


@router.get("/docs")
async def docs(request: Request) -> Response:
    """Return the routes as a page that loads nothing."""
    return HTMLResponse("".join(_page(request.app.openapi())), headers={"Content-Security-Policy": _CSP})


def _page(document: dict[str, Any]) -> Iterator[str]:
    title = escape(f"{document['info']['title']} {document['info']['version']}")
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    yield f"<h1>{title}</h1><p>{escape(document['info'].get('description', ''))}</p>"
    yield '<p>The whole document: <a href="openapi.json">openapi.json</a></p>'
    tag = None
    for path, operations in document["paths"].items():
        for method in _METHODS:
            if operation := operations.get(method):
                heading = ", ".join(operation.get("tags", ()))
                if heading != tag:
                    tag = heading
                    yield f"<h2>{escape(heading)}</h2>"
                yield from _operation(document, method, path, operation)


def _operation(document: dict[str, Any], method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    summary = escape(operation.get("summary", ""))
    yield f"<details><summary><code><b>{method.upper()}</b> {escape(path)}</code> {summary}</summary>"
    yield f"<p>{escape(operation.get('description', ''))}</p>"
    rows = [
        (parameter["name"], parameter["in"], parameter.get("description", ""))
        for parameter in operation.get("parameters", ())
    ]
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    if body:
        properties = _resolved(document, body).get("properties", {})
        rows += [(name, "body", field.get("description", "")) for name, field in properties.items()]
    if rows:
        yield "<table><tr><th>Name</th><th>In</th><th>Meaning</th></tr>"
        for name, where, meaning in rows:
            yield f"<tr><td><code>{escape(name)}</code></td><td>{where}</td><td>{escape(meaning)}</td></tr>"
        yield "</table>"
    yield "<table><tr><th>Status</th><th>Meaning</th></tr>"
    for status, answer in operation["responses"].items():
        yield f"<tr><td>{escape(status)}</td><td>{escape(answer.get('description', ''))}</td></tr>"
    yield "</table></details>"


def _resolved(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = document["components"]["schemas"].get(name, schema)
    return found
