"""The migrations as scripts: which there are, in which order, and the oldest release that may serve each schema."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Final

from alembic.config import Config
from alembic.script import ScriptDirectory

#: The last revision from before releases could serve a newer schema: each schema up to it is served by its own release.
BASELINE: Final = "0015"


def config() -> Config:
    """Return Alembic's configuration of the migrations of this release."""
    made = Config()
    made.set_main_option("script_location", str(Path(__file__).parent))
    made.set_main_option("path_separator", "os")
    return made


@cache
def directory() -> ScriptDirectory:
    """Return the scripts of this release."""
    return ScriptDirectory.from_config(config())


def head() -> str:
    """Return the last revision."""
    return str(directory().get_current_head())


def order() -> list[str]:
    """Return all revisions, the first one first."""
    return [script.revision for script in directory().walk_revisions()][::-1]


def after(revision: str | None) -> list[str]:
    """Return the revisions that come after one that is known, or all after None."""
    known = order()
    return known if revision is None else known[known.index(revision) + 1 :]


def title(revision: str) -> str:
    """Return what a revision does, in a line."""
    return str(directory().get_revision(revision).doc)


def serves_from(revision: str) -> str:
    """Return the oldest revision whose release may serve the schema of `revision`.

    A migration that only adds keeps what the one before it says; one that takes away (`contract = True`) names the
    revision in `serves_from` that it needs.
    """
    serving: str | None = None
    for one in order():
        script: Any = directory().get_revision(one).module
        stated = getattr(script, "serves_from", None)
        serving = one if serving is None or one <= BASELINE else (stated or serving)
        if one == revision:
            return serving
    raise ValueError(f"there is no revision {revision}")
