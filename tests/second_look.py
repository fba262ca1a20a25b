"""Runs the few tests that failed beside others once more, alone: `python -m tests.second_look [command …]`.

A busy machine can let a test of time limits fail; code that is wrong fails alone too. What attacks the service or holds
it to a promise gets no second look, since there a failure by chance is a finding, and neither do many at once. Each
test that passes alone only is named, so that it can be mended. A command, where one is given, is put before pytest.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

#: More than these are no chance.
MOST: Final = 3
#: Rooms in which one failure is a finding.
STRICT: Final = ("tests/faults/", "tests/isolation/", "tests/promises/")
_FAILED: Final = Path(".pytest_cache/v/cache/lastfailed")


def refusal(names: Sequence[str]) -> str | None:
    """Return why these get no second look, or None when they get one."""
    if not names:
        return "no test is known to have failed"
    if len(names) > MOST:
        return f"{len(names)} tests failed, more than {MOST}"
    strict = [name for name in names if name.startswith(STRICT)]
    return f"a failure there is a finding: {', '.join(strict)}" if strict else None


def main(command: Sequence[str]) -> int:
    """Run them and return 0 when all pass."""
    names = sorted(json.loads(_FAILED.read_text())) if _FAILED.is_file() else []
    if why := refusal(names):
        print(f"no second look: {why}")
        return 1
    code = subprocess.run([*command, sys.executable, "-m", "pytest", "-n", "0", *names], check=False).returncode
    for name in names:
        print(f"failed beside others, {'failed' if code else 'passed'} alone: {name}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
