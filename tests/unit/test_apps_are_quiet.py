"""No app that the service makes has FastAPI's own telemetry: it would record, and could export, texts of exceptions."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import service
from service.api.quiet import TELEMETRY_OFF

pytestmark = pytest.mark.unit


def test_every_app_is_told_to_leave_telemetry_off() -> None:
    told: dict[str, str | None] = {}
    root = Path(service.__file__).parent
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("FastAPI", "_App"):
                given = {one.arg: ast.unparse(one.value) for one in node.keywords}
                told[str(path.relative_to(root))] = given.get("telemetry")
    assert len(told) >= 2
    assert set(told.values()) == {"TELEMETRY_OFF"}, told
    assert not any(TELEMETRY_OFF.values())
