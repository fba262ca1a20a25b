"""The reference tables say what the code does: permissions, routes, commands, filters, errors, event codes, limits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, cast

import click
import pytest
import typer.main
from fastapi.routing import iter_route_contexts

from service import errors
from service.api.errors import _CODES as ROUTING_CODES
from service.api.platform.parameters import LARGEST_PAGE
from service.audit.events import EVENT_OF
from service.cli.app import commands
from service.embeddings import EmbeddingUnavailable
from service.engine.errors import EngineError, StoreAway
from service.errors import (
    ConfigurationError,
    IndexUnavailable,
    InvalidInput,
    KeyringUnavailable,
    MemvaultError,
    QuotaExceeded,
    RecordBusy,
    RecordUnavailable,
    TooManyRequests,
    TooManyWaiting,
)
from service.filters.ast import Op
from service.filters.metadata_limits import MAX_BYTES, MAX_DEPTH, MAX_KEY, MAX_LEAVES, RESERVED
from service.filters.parse import LIMITS, parse_filter
from service.main import create_app
from service.mcp.tools import TOOLS
from service.memories import extraction, limits
from service.policy.table import NEEDS, ROLES
from service.scope import Action, Limit
from service.settings import load_settings, setting_names
from service.wiring import Services
from tests.docs.pages import ROOT, code, page, pages, prose, table

pytestmark = pytest.mark.unit

API, PERMISSIONS, CONNECT = (f"docs/{name}.md" for name in ("api", "permissions", "connect"))
OPERATE = "docs/operate/README.md"


def test_roles() -> None:
    rows = {code(row["role"])[0]: set(code(row["permissions"])) for row in table(PERMISSIONS, "role")}
    assert rows == {role: {permission.value for permission in held} for role, held in ROLES.items()}


def test_actions() -> None:
    rows = {code(row["action"])[0]: row for row in table(PERMISSIONS, "action")}
    assert set(rows) == {action.value for action in Action} == {action.value for action in NEEDS}
    for action, needed in NEEDS.items():
        row = rows[action.value]
        assert row["permission"] == (f"`{needed.value}`" if needed else "any key"), action
        assert code(row["audit event"]) == [EVENT_OF[action].value], action
        shown = {name for name, tool in TOOLS.items() if tool.action is action}
        assert {name for name in code(row["MCP"]) if name in TOOLS} == shown, action


def test_tools() -> None:
    rows = {code(row["tool"])[0]: code(row["needs"]) for row in table(CONNECT, "tool")}
    assert rows == {name: [str(NEEDS[tool.action])] for name, tool in TOOLS.items()}


def test_every_route_is_documented() -> None:
    served = set(_routes())
    assert len(served) > 20
    named = set(_named_routes(page(API)))
    assert served - named == set(), "docs/api.md does not name these"
    assert named - served == set(), "docs/api.md names what is not served"


@pytest.mark.parametrize(
    "path",
    [PERMISSIONS, "docs/connect.md", OPERATE, "docs/extraction.md", "docs/audit.md", "docs/tokens.md", "README.md"],
)
def test_routes_that_are_named_exist(path: str) -> None:
    templates = [(method, re.sub(r"\{\w+\}", r"[^/]+", route)) for method, route in _routes()]
    for method, route in _named_routes(page(path)):
        bare = route.split("?")[0]
        assert any(method == m and re.fullmatch(t, bare) for m, t in templates), f"{path}: {method} {route}"


def test_every_command_is_documented() -> None:
    named = {command for row in table(OPERATE, "command") for command in code(row["command"])}
    assert named == set(_commands())


@pytest.mark.parametrize("path", list(pages()))
def test_commands_and_targets_that_are_named_exist(path: str) -> None:
    commands, groups = set(_commands()), {command.split()[0] for command in _commands() if " " in command}
    for words in re.findall(r"(?:\.venv/bin/|`)memvault ((?:[a-z-]+ ?){1,2})", page(path)):
        found = words.split()
        name = " ".join(found[:2]) if found[0] in groups else found[0]
        assert name in commands, f"{path}: there is no command memvault {name}"
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for target in re.findall(r"(?:`|^)make ([a-z-]+)", page(path), re.MULTILINE):
        assert target in targets, f"{path}: there is no target {target}"


def test_options_that_are_named_exist() -> None:
    options = {name for command in _leaves() for parameter in command.params for name in parameter.opts} | {"--help"}
    for path in pages():
        for line in re.findall(r"\.venv/bin/memvault [^\n`]*", page(path)):
            assert set(re.findall(r"--[a-z-]+", line)) <= options, f"{path}: {line}"


def test_errors() -> None:
    rows = {code(row["code"])[0]: int(row["status"]) for row in table(API, "code")}
    classes = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, MemvaultError)]
    ours = {one.code: one.status for one in classes if one is not ConfigurationError}
    routing = {named: status for status, named in ROUTING_CODES.items()}
    assert rows == ours | routing


def test_event_codes() -> None:
    told = table("docs/extraction.md", "code")
    rows = {one: (code(row["status"])[0], row["tried again"]) for row in told for one in code(row["code"])}
    expected: dict[str, tuple[str, str]] = {QuotaExceeded.code: ("FAILED", "no")}
    away = [IndexUnavailable, RecordUnavailable, RecordBusy, KeyringUnavailable, EmbeddingUnavailable]
    expected |= {kind.code: ("PENDING", "until it is back") for kind in away}
    for kind in set(_family(EngineError)) - {StoreAway}:
        again = "yes" if kind.max_attempts is None else f"up to {kind.max_attempts} tries"
        expected[kind.code] = ("FAILED", again if kind.transient else "no")
    for obstacle in [*extraction._OBSTACLES, "deleted"]:
        expected[obstacle] = ("CANCELLED", "")
    assert rows == expected


def test_filter_keys_and_operators() -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_filter({"no_such_key": 1})
    allowed = set(refused.value.detail.split("allowed are ")[1].split(", ")) - {"AND", "OR", "NOT"}
    rows = {name: set(code(row["operators"])) for row in table(API, "key") for name in code(row["key"])}
    assert set(rows) == allowed
    for name, operators in rows.items():
        assert operators == {op.value for op in Op if _takes(name, op)}, name


def test_limits() -> None:
    settings = load_settings(environ={})
    named = {}
    for row in table(API, "what"):
        for name in code(row["setting"]):
            named[name] = int(row["limit"].split()[0])
    for name, limit in named.items():
        value: Any = settings
        for part in name.split("."):
            value = getattr(value, part)
        assert limit == value, name
    assert {name for name in setting_names() if name.startswith("limits.")} <= set(named)
    rows = {row["what"]: [int(number) for number in re.findall(r"\d+", row["limit"])] for row in table(API, "what")}
    assert rows["an id, a speaker's name"] == [limits._NAME_CHARS] == [LIMITS.id]
    assert rows["categories of a memory"] == [limits._CATEGORIES, limits._CATEGORY_CHARS]
    assert rows["`top_k`, `page_size`"] == [LARGEST_PAGE]
    told = [LIMITS.depth, LIMITS.conditions, LIMITS.values, LIMITS.all_values, LIMITS.string]
    assert rows["a filter"] == told


def test_limits_of_tenants() -> None:
    answers = {
        QuotaExceeded: "memories bytes",
        TooManyRequests: "requests_per_second",
        TooManyWaiting: "events_waiting",
    }
    refused = {name: f"{kind.status} `{kind.code}`" for kind, names in answers.items() for name in names.split()}
    rows = {}
    for row in table("docs/limits.md", "limit"):
        option, setting = code(row["option, setting"])
        name = setting.removeprefix("quotas.")
        assert option == f"--{name.replace('_', '-')}"
        rows[name] = row["beyond it"]
    assert set(rows) == {limit.value for limit in Limit}
    assert {f"quotas.{name}" for name in rows} == {name for name in setting_names() if name.startswith("quotas.")}
    assert {name: told for name, told in rows.items() if "PENDING" not in told} == refused


def test_metadata_limits_and_reserved_keys() -> None:
    section = prose(API).split("## Metadata")[1].split("\n## ")[0]
    limits_told = section.split("These keys")[0]
    assert [int(one) for one in re.findall(r"\d+", limits_told)] == [MAX_DEPTH, MAX_LEAVES, MAX_BYTES // 1024, MAX_KEY]
    assert set(code(section.split("`reserved_metadata_key`:")[1])) == set(RESERVED)


def test_parts_of_readiness(services: Services) -> None:
    named = [code(row["part"])[0] for row in table(OPERATE, "part")]
    assert named == [part.name for part in services.readiness()]


def _routes() -> Iterator[tuple[str, str]]:
    app = create_app(lambda: cast(Services, None), settings=load_settings(environ={}))
    for route in iter_route_contexts(app.routes):
        path = re.sub(r"\{(\w+):path\}", r"{\1}", route.path or "")
        # The MCP face answers other methods by saying that it takes POST only.
        methods = set(route.methods or {"POST"}) - {"HEAD"} if not path.startswith("/mcp") else {"POST"}
        for method in methods:
            if path != "/mcp/":
                yield method, path


def _named_routes(text: str) -> Iterator[tuple[str, str]]:
    yield from re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (/[^\s`]*)`", text)


def _leaves() -> Iterator[click.Command]:
    for _, command in _walk(typer.main.get_command(commands()), ""):
        yield command


def _commands() -> Iterator[str]:
    for name, _ in _walk(typer.main.get_command(commands()), ""):
        yield name


def _walk(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name, command
        return
    for own, one in inner.items():
        yield from _walk(one, f"{name} {own}".strip())


def _family(kind: type[EngineError]) -> Iterator[type[EngineError]]:
    yield kind
    for one in kind.__subclasses__():
        yield from _family(one)


def _takes(name: str, op: Op) -> bool:
    """Whether the parser takes the operator for this key with some value."""
    conditions: list[dict[str, Any]] = [{op.value: value} for value in _SAMPLES]
    return any(_accepted({name: {"key": one} if name == "metadata" else one}) for one in conditions)


_SAMPLES: list[Any] = ["2026-01-31", True, 1, ["2026-01-31"]]


def _accepted(raw: dict[str, Any]) -> bool:
    try:
        parse_filter(raw)
    except InvalidInput:
        return False
    return True
