"""Migrations first add and only later take away, and no index stops the writers of a filled table."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.migrations import scripts
from tests.unit.migration_rules import problems

pytestmark = pytest.mark.unit

VERSIONS = Path(scripts.__file__).parent / "versions"
KNOWN = ["0015", "0016", "0017"]


def test_every_migration_after_the_baseline_keeps_the_rules() -> None:
    order = scripts.order()
    for revision in order[order.index(scripts.BASELINE) + 1 :]:
        path = Path(str(scripts.directory().get_revision(revision).path))
        assert problems(path, order[: order.index(revision) + 1]) == [], path.name


def written(folder: Path, body: str, marks: str = "") -> Path:
    """A migration whose upgrade runs `body`."""
    path = folder / "0017_more.py"
    lines = ['"""More."""', "from alembic import op", 'revision = "0017"', marks, f"_MORE = {body!r}"]
    path.write_text("\n".join([*lines, "def upgrade():", "    op.execute(_MORE)", "def downgrade():", "    pass"]))
    return path


@pytest.mark.parametrize(
    "body",
    [
        "ALTER TABLE memories DROP COLUMN vector",
        "DROP TABLE feedback",
        "ALTER TABLE memories RENAME COLUMN vector TO vectors",
        "ALTER TABLE memories ALTER COLUMN event_id SET NOT NULL",
        "ALTER TABLE memories ALTER COLUMN version TYPE integer",
        "ALTER TABLE memories ALTER version SET DATA TYPE integer",
        "ALTER TABLE memories ADD COLUMN kind varchar NOT NULL",
        "ALTER TABLE memories ADD CONSTRAINT one CHECK (version > 0)",
        "ALTER TABLE audit ALTER COLUMN permissions DROP DEFAULT",
        "CREATE UNIQUE INDEX CONCURRENTLY one ON memories (event_id)",
        "REVOKE INSERT ON memories FROM memvault_app",
        "TRUNCATE outbox",
    ],
)
def test_what_an_older_release_cannot_go_on_with_must_be_a_contraction(body: str, tmp_path: Path) -> None:
    assert any("contract = True" in one for one in problems(written(tmp_path, body), KNOWN))
    marked = written(tmp_path, body, 'contract = True\nunused_since = "1.4.0"\nserves_from = "0016"')
    assert problems(marked, KNOWN) == []


@pytest.mark.parametrize(
    "marks",
    [
        "contract = True",
        'contract = True\nunused_since = "soon"\nserves_from = "0016"',
        'contract = True\nunused_since = "1.4.0"\nserves_from = "0099"',
        'serves_from = "0016"',
    ],
)
def test_a_contraction_names_the_release_and_the_revision(marks: str, tmp_path: Path) -> None:
    assert problems(written(tmp_path, "DROP TABLE feedback", marks), KNOWN)


@pytest.mark.parametrize(
    "body",
    [
        "ALTER TABLE memories ADD COLUMN kind varchar",
        "ALTER TABLE memories ADD COLUMN kind varchar NOT NULL DEFAULT 'fact'",
        "CREATE TABLE notes (id uuid NOT NULL); CREATE UNIQUE INDEX one ON notes (id);"
        " ALTER TABLE notes ADD CONSTRAINT two CHECK (id IS NOT NULL)",
        "CREATE INDEX CONCURRENTLY one ON memories (event_id)",
    ],
)
def test_what_only_adds_is_free(body: str, tmp_path: Path) -> None:
    assert problems(written(tmp_path, body), KNOWN) == []


def test_an_index_on_a_filled_table_is_built_concurrently_or_declared_safe(tmp_path: Path) -> None:
    body = "CREATE INDEX one ON memories (event_id)"
    assert any("CONCURRENTLY" in one for one in problems(written(tmp_path, body), KNOWN))
    assert problems(written(tmp_path, body, 'safe_index = "the table has some rows per tenant"'), KNOWN) == []


def test_the_rules_see_what_the_older_migrations_did() -> None:
    """The check reads real files: those from before the rules would not all have kept them."""
    broken = [path.name for path in sorted(VERSIONS.glob("00*.py")) if problems(path, KNOWN)]
    assert "0002_audit_integrity.py" in broken
    assert "0003_audit_streams.py" not in broken
