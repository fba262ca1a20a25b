"""Which failures get a second look, and which are findings at once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests import second_look

pytestmark = pytest.mark.unit

SLOW = "tests/integration/api/test_time_limits.py::test_one"


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ([], "no test is known"),
        ([f"{SLOW}{number}" for number in range(4)], "4 tests failed"),
        ([SLOW, "tests/isolation/test_a.py::test_b"], "tests/isolation/test_a.py::test_b"),
        (["tests/promises/test_a.py::test_b"], "a finding"),
        (["tests/faults/test_a.py::test_b"], "a finding"),
    ],
)
def test_many_and_findings_get_no_second_look(names: list[str], why: str) -> None:
    assert why in (second_look.refusal(names) or "")


def test_the_rooms_of_findings_are_there() -> None:
    root = Path(second_look.__file__).parent.parent
    assert [room for room in second_look.STRICT if not (root / room).is_dir()] == []


def test_a_few_others_get_one() -> None:
    assert second_look.refusal([SLOW]) is None


@pytest.mark.parametrize(("body", "code"), [("assert True", 0), ("assert False", 1)])
def test_what_fails_alone_too_has_failed(
    body: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_it.py").write_text(f"def test_it():\n    {body}\n")
    cache = tmp_path / ".pytest_cache/v/cache"
    cache.mkdir(parents=True)
    (cache / "lastfailed").write_text('{"test_it.py::test_it": true}')
    assert second_look.main([sys.executable, "-c", "raise SystemExit(3)"]) == 3
    assert second_look.main([]) == code
    assert f"{'failed' if code else 'passed'} alone: test_it.py::test_it" in capfd.readouterr().out
