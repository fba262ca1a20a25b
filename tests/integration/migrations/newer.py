"""A release that is newer than this one: the same migrations and one more, from a folder of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from service.migrations import scripts

_REAL = scripts.config


@contextmanager
def newer_release(folder: Path, upgrade: str = "pass", **attributes: object) -> Iterator[str]:
    """Be a release with one migration more for the block; lend its revision. `upgrade` is the code that it runs."""
    last, revision = scripts.head(), "9000"
    lines = [
        '"""What a newer release adds."""',
        "from alembic import op",
        f"revision, down_revision = {revision!r}, {last!r}",
        *(f"{name} = {value!r}" for name, value in attributes.items()),
        f"def upgrade():\n    {upgrade}",
        "def downgrade():\n    pass",
    ]
    (folder / f"{revision}_newer.py").write_text("\n".join(lines), encoding="utf-8")

    def config() -> object:
        made = _REAL()
        real = Path(scripts.__file__).parent / "versions"
        made.set_main_option("version_locations", f"{real}:{folder}")
        return made

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(scripts, "config", config)
        scripts.directory.cache_clear()
        try:
            yield revision
        finally:
            scripts.directory.cache_clear()
    scripts.directory.cache_clear()
