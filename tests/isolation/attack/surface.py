"""What can be attacked: every route of the app and every tool, with each place of a call where something can be put."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, cast
from urllib.parse import quote, urlencode

from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts

from service.api.deps import GuardedRoute
from service.main import create_app
from service.mcp.tools import TOOLS as SERVED_TOOLS
from service.scope import Action
from service.settings import load_settings
from service.wiring import Services
from tests.isolation.attack.calls import Call
from tests.isolation.attack.lines import HOLDS, ROUTES, TOOLS, Line

#: The kind of a body that is lines.
LINES: Final = "lines"
VERSION: Final = "2026-07-28"
_JSON: Final = ("Content-Type", "application/json")
_DEEPEST: Final = 3


@dataclass(frozen=True)
class Place:
    """Where something can be put: a part of a call, the keys that lead to it, and what it holds by right."""

    part: str
    keys: tuple[str | int, ...]
    kind: str

    def __str__(self) -> str:
        return f"{self.part}.{'.'.join(map(str, self.keys))}"


@dataclass(frozen=True)
class Parts:
    """A call that is not spelled out yet: what stands in which place."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    header: Mapping[str, str]
    body: Any

    def put(self, place: Place, value: Any) -> Parts:
        """Return the parts with a value in a place; objects and lists go into a query or a path as JSON."""
        if place.part == "body":
            return Parts(self.path, self.query, self.header, _put(deepcopy(self.body), place.keys, value))
        name = str(place.keys[0])
        text = value if isinstance(value, str) else json.dumps(value)
        changed = {**getattr(self, place.part), name: text}
        return Parts(**{**vars(self), place.part: changed})


@dataclass(frozen=True)
class Operation:
    """A route or a tool. `holes` are the kinds of things that a valid call needs one of."""

    name: str
    action: Action | None
    parts: Parts
    places: tuple[Place, ...]
    method: str = ""
    template: str = ""
    tool: str | None = None
    resource: str | None = None
    either: tuple[str, ...] = ()
    media: str = "application/json"

    def put(self, place: Place, value: Any) -> Parts:
        """Return the parts with a value in a place, and without what may not stand beside it."""
        parts = self.parts.put(place, value)
        if place.part == "body" and place.keys and place.keys[0] in self.either:
            body = {name: one for name, one in parts.body.items() if name == place.keys[0] or name not in self.either}
            parts = Parts(parts.path, parts.query, parts.header, body)
        return parts

    def call(self, parts: Parts) -> Call:
        """Return the request."""
        if self.tool is not None:
            return message("tools/call", {"name": self.tool, "arguments": parts.body}, name=self.tool)
        if self.resource is not None:
            uri = self.resource.format(**{name: _quoted(text) for name, text in parts.path.items()})
            return message("resources/read", {"uri": uri}, name=uri)
        path = self.template
        for name, text in parts.path.items():
            path = path.replace(f"{{{name}:path}}", f"{{{name}}}").replace(f"{{{name}}}", _quoted(text))
        headers = tuple(parts.header.items())
        body = b""
        if isinstance(parts.body, str):
            headers, body = (*headers, ("Content-Type", self.media)), parts.body.encode("utf-8", "surrogatepass")
        elif parts.body is not None:
            headers, body = (*headers, _JSON), json.dumps(parts.body).encode("utf-8", "surrogatepass")
        return Call(self.method, path, urlencode(parts.query, errors="surrogatepass"), headers, body)

    def holding(self, kind: str) -> list[Place]:
        """Return the places that hold this kind of thing."""
        return [place for place in self.places if place.kind == kind]


def _quoted(text: str) -> str:
    return quote(text, safe="", errors="surrogatepass")


def message(method: str, params: dict[str, Any], *, name: str | None = None) -> Call:
    """Return one message of MCP."""
    meta = {"io.modelcontextprotocol/protocolVersion": VERSION, "io.modelcontextprotocol/clientCapabilities": {}}
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
    headers = [_JSON, ("Accept", "application/json, text/event-stream"), ("MCP-Protocol-Version", VERSION)]
    headers.append(("Mcp-Method", method))
    if name is not None:
        headers.append(("Mcp-Name", name))
    return Call("POST", "/mcp", "", tuple(headers), json.dumps(body).encode("utf-8", "surrogatepass"))


@cache
def app() -> FastAPI:
    """The app, for its routes and its document alone."""
    return create_app(lambda: cast(Services, None), settings=load_settings(environ={}))


def guarded_routes() -> dict[tuple[str, str], GuardedRoute]:
    """Every route behind the doorway."""
    found = {}
    for context in iter_route_contexts(app().routes):
        route = context.original_route
        if isinstance(route, GuardedRoute):
            for method in route.methods or ():
                found[method, str(context.path)] = route
    return found


def open_routes() -> set[str]:
    """Paths of the routes that are not behind the doorway."""
    return {
        str(context.path)
        for context in iter_route_contexts(app().routes)
        if isinstance(context.original_route, APIRoute) and not isinstance(context.original_route, GuardedRoute)
    }


@cache
def operations() -> dict[str, Operation]:
    """Every route and tool that has its line, by name."""
    found = {}
    for (method, path), route in guarded_routes().items():
        if (line := ROUTES.get((method, path))) is not None:
            one = _of_route(method, path, route, line)
            found[one.name] = one
    for name, tool in SERVED_TOOLS.items():
        if (told := TOOLS.get(name)) is not None:
            found[f"tool {name}"] = _of_tool(name, tool.action, tool.input_schema, told)
    profile = Place("path", ("user_id",), "user")
    parts = Parts({"user_id": "alice"}, {}, {}, None)
    found["resource"] = Operation("resource", Action.LIST, parts, (profile,), resource="memory://users/{user_id}")
    return found


def unnamed_ids() -> list[str]:
    """Fields that look like ids and are in no table."""
    return [
        f"{one.name}: {place}"
        for one in operations().values()
        for place in one.places
        if place.kind == "text"
        and place.keys
        and str(place.keys[-1] if isinstance(place.keys[-1], str) else place.keys[-2]).lower()
        in _IDS_ALONE | {key for key in _named(place) if key.endswith(("_id", "_ids"))}
    ]


_IDS_ALONE: Final = frozenset({"id", "ids"})


def _named(place: Place) -> list[str]:
    return [key.lower() for key in place.keys if isinstance(key, str)]


def _of_route(method: str, path: str, route: GuardedRoute, line: Line) -> Operation:
    name, plain = f"{method} {path}", path.replace(":path}", "}")
    told = app().openapi()["paths"][plain][method.lower()]
    schemas = app().openapi()["components"]["schemas"]
    places, given = [], {"path": dict(line.path), "query": dict(line.query), "header": {}}
    for one in told.get("parameters", ()):
        place = Place(one["in"], (one["name"],), _kind(one["name"], one["schema"], line))
        places.append(place)
        if one.get("required") and one["name"] not in given[one["in"]]:
            given[one["in"]][one["name"]] = f"<{place.kind}>"
    body = None
    content = told.get("requestBody", {}).get("content", {})
    if content:
        media, told_body = next(iter(content.items()))
        schema = told_body["schema"]
        if schema.get("type") == "string":
            # What is no JSON object is taken whole.
            parts = Parts(given["path"], given["query"], given["header"], f"<{LINES}>")
            places.append(Place("body", (), LINES))
            return Operation(name, route.action, parts, tuple(places), method, path, media=media)
        body = _body(schema, schemas, line)
        places += [Place("body", keys, kind) for keys, kind in _walk(schema, schemas, line, ())]
    parts = Parts(given["path"], given["query"], given["header"], body)
    return Operation(
        f"{method} {path}", route.action, parts, tuple(places), method=method, template=path, either=line.either
    )


def _of_tool(name: str, action: Action, schema: dict[str, Any], line: Line) -> Operation:
    schemas = schema.get("$defs", {})
    body = _body(schema, schemas, line)
    places = [Place("body", keys, kind) for keys, kind in _walk(schema, schemas, line, ())]
    return Operation(f"tool {name}", action, Parts({}, {}, {}, body), tuple(places), tool=name, either=line.either)


def _body(schema: dict[str, Any], schemas: dict[str, Any], line: Line) -> dict[str, Any]:
    derived = {name: one for name, one in _example(schema, schemas).items() if name not in line.either}
    return {**derived, **line.body}


def _kind(name: str, schema: dict[str, Any], line: Line) -> str:
    if (told := line.holds.get(name) or HOLDS.get(name)) is not None:
        return told
    kinds = {one.get("type") for one in (schema, *schema.get("anyOf", ()))}
    return "text" if kinds & {"string", "array", None} and "string" in json.dumps(schema) else "scalar"


def _resolved(schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        return cast(dict[str, Any], schemas[schema["$ref"].rpartition("/")[2]])
    options = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
    return _resolved(options[0], schemas) if options else schema


def _walk(
    schema: dict[str, Any], schemas: dict[str, Any], line: Line, keys: tuple[str | int, ...]
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield the keys that lead to each field of a body, and what it holds."""
    for name, raw in _resolved(schema, schemas).get("properties", {}).items():
        own, here = _resolved(raw, schemas), (*keys, name)
        known = line.holds.get(name) or HOLDS.get(name)
        if own.get("type") == "array":
            inner = _resolved(own.get("items", {}), schemas)
            if inner.get("properties") and len(here) < _DEEPEST:
                yield from _walk(inner, schemas, line, (*here, 0))
            elif inner.get("type") == "string":
                yield (*here, 0), _kind(name, inner, line)
            if known == "filters":
                yield here, known
        elif own.get("properties") and len(here) < _DEEPEST:
            yield from _walk(own, schemas, line, here)
        else:
            yield here, known or ("object" if own.get("type") == "object" else _kind(name, own, line))


def _example(schema: dict[str, Any], schemas: dict[str, Any]) -> Any:
    """Return the least that is valid: required fields only."""
    own = _resolved(schema, schemas)
    if own.get("examples"):
        return deepcopy(own["examples"][0])
    if "enum" in own:
        return own["enum"][0]
    if "const" in own:
        return own["const"]
    kind = own.get("type")
    if kind == "object":
        fields = own.get("properties", {})
        return {name: _filled(name, fields[name], schemas) for name in own.get("required", ())}
    if kind == "array":
        return [_example(own.get("items", {}), schemas)]
    return {"integer": own.get("minimum", 1), "number": own.get("minimum", 1), "boolean": False}.get(str(kind), "tea")


def _filled(name: str, schema: dict[str, Any], schemas: dict[str, Any]) -> Any:
    kind = HOLDS.get(name)
    if kind in (None, "number", "filters"):
        return _example(schema, schemas)
    own = _resolved(schema, schemas)
    return [f"<{kind}>"] if own.get("type") == "array" else f"<{kind}>"


def _put(body: Any, keys: tuple[str | int, ...], value: Any) -> Any:
    """Return the body with a value put in; what leads there is made where it is missing."""
    if not keys:
        return value
    first, rest = keys[0], keys[1:]
    if isinstance(first, int):
        items = body if isinstance(body, list) else []
        body = items or [None]
        body[0] = _put(body[0], rest, value)
        return body
    if not isinstance(body, dict):
        body = {}
    body[first] = _put(body.get(first), rest, value)
    return body
