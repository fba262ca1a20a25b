"""Where Helm is not installed, the tests of the chart say so, and what would install it says it in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy import chart, helm_binary

pytestmark = pytest.mark.unit

REASON = "helm is not installed: needs Go when `make test-deps` runs"


def test_the_tests_are_skipped_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = tmp_path / "helm"
    monkeypatch.setattr(helm_binary, "find", lambda binary=missing: _find(binary))
    with pytest.raises(pytest.skip.Exception, match=REASON):
        chart.helm("version")


_find = helm_binary.find


def test_without_go_nothing_is_installed_and_one_line_is_said(tmp_path: Path) -> None:
    """`make test-deps` goes on."""
    code = (
        "import runpy, tests.deploy.helm_binary as one; from pathlib import Path;"
        "Path.is_file = lambda self: False; runpy.run_module('tests.deploy.helm_binary', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=Path(helm_binary.__file__).parents[2],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"The tests of the Helm chart will be skipped: {REASON}\n"


def test_another_version_is_not_taken(tmp_path: Path) -> None:
    old = tmp_path / "helm"
    old.write_text("#!/bin/sh\necho v3.0.0\n", encoding="utf-8")
    old.chmod(0o755)
    with pytest.raises(helm_binary.NotInstalled, match=r"helm is v3\.0\.0, not v3\."):
        helm_binary.find(old)
