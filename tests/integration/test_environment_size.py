"""The size of what `make run` installs: it must fit where a laptop or a small image has room for it."""

import re
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import cache_from_source
from pathlib import Path

import pytest
from packaging.requirements import Requirement

pytestmark = pytest.mark.integration

RUNTIME = Path(__file__).parents[2] / "config" / "requirements" / "runtime.txt"
LIMIT_BYTES = 700 * 10**6


def wanted_here() -> list[str]:
    """The distributions of runtime.txt whose marker holds on this machine."""
    lines = re.findall(r"^(\w[^\\\n]*)", RUNTIME.read_text(), flags=re.MULTILINE)
    requirements = map(Requirement, lines)
    return sorted({each.name for each in requirements if each.marker is None or each.marker.evaluate()})


def files_of(name: str) -> set[Path]:
    """What a distribution has on disk, with its compiled modules, whether pip recorded them or Python wrote them."""
    files = set()
    for record in distribution(name).files or []:
        path = Path(str(record.locate())).resolve()
        files.add(path)
        if path.suffix == ".py":
            files.add(Path(cache_from_source(str(path))))
    return {path for path in files if path.is_file()}


def test_the_runtime_environment_stays_small() -> None:
    """Less than 700 MB for the distributions that the service runs on."""
    missing, files = [], set()
    for name in wanted_here():
        try:
            files |= files_of(name)
        except PackageNotFoundError:
            missing.append(name)
    assert not missing, "the environment is not the one of runtime.txt, its size says nothing: make test-deps"

    size = sum(path.stat().st_size for path in files)
    assert size > 200 * 10**6, "smaller than the model and PostgreSQL alone: the files were not found"
    assert size < LIMIT_BYTES, f"{size / 10**6:.0f} MB"
