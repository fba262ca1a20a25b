"""An export that was cut off, or that lacks lines, is not taken for a whole one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from service.portability import exports as exports_module
from service.portability.exports import Wanted
from service.portability.records import Unreadable
from service.portability.sources import Options, open_source
from service.scope import Caller
from service.wiring import Services
from tests.conftest import caller_of
from tests.integration.holds.conftest import Add, add
from tests.integration.portability.test_round_trip import comparable, exported, imported

__all__ = ["add"]
pytestmark = pytest.mark.integration


@pytest.fixture
def rival(services: Services) -> Caller:
    """A caller of another tenant."""
    return caller_of(services, services.installation.tenants.create("rival").id)


@pytest.fixture
def lines(services: Services, caller: Caller, add: Add) -> list[Any]:
    """The lines of an export."""
    for text in ("I love tea", "I love rain", "I love hail"):
        add(text)
    return exported(services, caller)


def test_an_export_that_was_cut_off_is_refused_wherever_that_was(
    services: Services, rival: Caller, lines: list[Any]
) -> None:
    for kept in range(1, len(lines)):
        for dry_run in (True, False):
            with pytest.raises(Unreadable, match=f"line {kept}: .* it was cut off"):
                imported(services, rival, lines[:kept], dry_run=dry_run, skip_refused=True)
    assert [line["type"] for line in exported(services, rival)] == ["export", "end"]
    assert imported(services, rival, lines).memories == 3


def test_an_export_that_lacks_lines_or_has_others_is_refused(
    services: Services, rival: Caller, lines: list[Any]
) -> None:
    last = f"line {len(lines) - 1}: .* some are missing"
    for gone in range(1, len(lines) - 1):
        with pytest.raises(Unreadable, match=last):
            imported(services, rival, lines[:gone] + lines[gone + 1 :])
    for end in ({"type": "end"}, {"type": "end", "lines": "9"}, {"type": "end", "lines": len(lines)}):
        with pytest.raises(Unreadable, match="some are missing"):
            imported(services, rival, [*lines[:-1], end])
    assert [line["type"] for line in exported(services, rival)] == ["export", "end"]


def test_a_file_that_was_cut_off_is_refused(
    services: Services, caller: Caller, rival: Caller, lines: list[Any], tmp_path: Path
) -> None:
    path = tmp_path / "some.jsonl"
    whole = b"".join(orjson.dumps(line) + b"\n" for line in lines)
    # Where a line was cut, it is no JSON; blank lines count for nothing.
    for content in (whole[: whole.index(b'{"type":"end"')], whole[:-9], whole.replace(b"\n", b"\n\n")):
        path.write_bytes(content)
        origin, source = open_source(str(path), None, Options())
        if content.endswith(b"\n\n"):
            assert services.imports.run(rival, rival.scope, source, origin=origin).memories == 3
            continue
        with pytest.raises(Unreadable, match=r"some\.jsonl:"):
            services.imports.run(rival, rival.scope, source, origin=origin)
    assert comparable(exported(services, rival)) == comparable(exported(services, caller))


def test_lines_alone_are_taken_as_they_come(services: Services, rival: Caller, lines: list[Any]) -> None:
    """Such as go over the API in several requests."""
    first, *rest = lines
    assert first["type"] == "export"
    assert imported(services, rival, rest[:3]).refused == 0
    report = imported(services, rival, rest)
    assert report.memories + report.known == 3
    assert report.known > 0


def test_exports_that_were_gone_on_with_or_put_together_are_whole(
    services: Services, caller: Caller, rival: Caller, lines: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports_module, "_BATCH", 1)
    first = next(iter(services.exports.read(caller, caller.scope, Wanted())))
    on = exported(services, caller, after=first.after)
    assert on[0]["type"] == "export"
    begun = [orjson.loads(line) for line in first.lines]
    report = imported(services, rival, [*begun, *on, *lines])
    assert (report.memories, report.known) == (3, 3)
    assert comparable(exported(services, rival)) == comparable(lines)
    with pytest.raises(Unreadable, match="cut off"):
        imported(services, rival, [*lines, *begun])
    with pytest.raises(Unreadable, match="some are missing"):
        imported(services, rival, [*begun, *on[:1], *on[2:]])
