"""The house rules that a reader would otherwise have to enforce: floors, names, sizes, sources of time and ids."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from service.cli.app import _COMMANDS

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
SERVICE = ROOT / "service"
SOURCES = sorted(path for path in SERVICE.rglob("*.py") if "__pycache__" not in path.parts)
# Migrations are dated records: long where a table is, and never read as part of the house.
ROOMS = [path for path in SOURCES if "versions" not in path.parts]

FORBIDDEN_NAMES = {"models", "utils", "common", "core", "helpers", "service", "manager"}
LINE_LIMIT = 500
# The command, and what the tests hold the schema and the proofs of the trail to.
READ_ELSEWHERE = {"main", "TENANT_BLIND_TABLES", "kept_tables", "root_of_path"}

# What only clock.py may call; time.monotonic and time.perf_counter measure durations and are free.
TIME_AND_IDS = re.compile(
    r"(^|\.)(datetime\.(now|utcnow|today)|date\.today|time\.time|time\.time_ns|uuid\.uuid[1467]|uuid[1467])$"
)


def calls(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every call in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func)


def named(paths: list[Path]) -> pytest.MarkDecorator:
    """One case a file, named by its path from the root."""
    return pytest.mark.parametrize("path", paths, ids=lambda path: str(path.relative_to(ROOT)))


def test_there_is_a_house_to_check() -> None:
    assert SERVICE / "__init__.py" in SOURCES


def test_imports_run_down_only() -> None:
    """The contracts in pyproject.toml hold; `make check` prints the offending lines."""
    # In a process of its own: the linter switches off every logger that exists already.
    script = "import sys; from importlinter.cli import lint_imports_command as lint; sys.exit(lint())"
    command = [sys.executable, "-c", script, "--config", str(ROOT / "pyproject.toml"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@named(SOURCES)
def test_a_module_begins_with_its_duty(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring, f"{path}: the first statement must be a docstring that says the module's one duty"
    assert docstring.splitlines()[0].strip()


@named(SOURCES)
def test_a_name_says_what_is_inside(path: Path) -> None:
    inside = {part.removesuffix(".py") for part in path.relative_to(SERVICE).parts}
    assert not inside & FORBIDDEN_NAMES


@named(ROOMS)
def test_a_file_stays_one_room(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= LINE_LIMIT, f"{path}: {lines} lines; it is two rooms"


@named(ROOMS)
def test_time_and_ids_come_from_the_clock(path: Path) -> None:
    if path == SERVICE / "clock.py":
        return
    found = [f"{path}:{line}: {name}" for line, name in calls(ast.parse(path.read_text())) if TIME_AND_IDS.search(name)]
    assert not found, "take the time and new ids from service.clock"


@named(ROOMS)
def test_only_the_cli_prints(path: Path) -> None:
    if path.relative_to(SERVICE).parts[0] in {"cli", "cli.py"}:
        return
    found = [f"{path}:{line}" for line, name in calls(ast.parse(path.read_text())) if name == "print"]
    assert not found, "write to the log of service.observability"


@pytest.mark.parametrize(
    ("code", "caught"),
    [
        ("datetime.now(UTC)", True),
        ("datetime.datetime.utcnow()", True),
        ("time.time()", True),
        ("uuid4()", True),
        ("uuid.uuid7()", True),
        ("uuid5(space, name)", False),
        ("time.monotonic()", False),
        ("time.perf_counter()", False),
        ("clock.now()", False),
    ],
)
def test_the_check_of_time_and_ids_sees_each_spelling(code: str, caught: bool) -> None:
    assert any(TIME_AND_IDS.search(name) for _, name in calls(ast.parse(code))) is caught


def test_what_is_imported_is_declared() -> None:
    """A package that only comes along with another one may leave with it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = project["project"]["dependencies"] + project["dependency-groups"]["model"]
    names = {normal(re.split(r"[^\w.-]", requirement, maxsplit=1)[0]) for requirement in declared}
    owners = packages_distributions()

    undeclared = set()
    for path in SOURCES:
        for module in imported(ast.parse(path.read_text())) - sys.stdlib_module_names - {"service"}:
            if not names & {normal(owner) for owner in owners.get(module, [module])}:
                undeclared.add(f"{path.relative_to(ROOT)}: {module}")
    assert not undeclared, "add it to [project] dependencies and run make lock"


def imported(tree: ast.AST) -> set[str]:
    """The top-level packages that a module imports by absolute name."""
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            modules.add(node.module.split(".")[0])
    return modules


def normal(name: str) -> str:
    """A distribution's name in its one normal spelling."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_what_a_module_defines_is_read() -> None:
    """A function, constant or plain class that nothing reads is dead; a decorator or base may register others."""
    trees = {path: ast.parse(path.read_text()) for path in ROOMS}
    read = {name for tree in trees.values() for name in names_read(tree)} | READ_ELSEWHERE
    read |= {function for _, function in _COMMANDS.values()}
    unread = [
        f"{path.relative_to(ROOT)}: {name}"
        for path, tree in trees.items()
        for name in names_defined(tree)
        if name not in read
    ]
    assert not unread, "remove it, or say in READ_ELSEWHERE who reads it"


def names_defined(tree: ast.Module) -> Iterator[str]:
    """The names at the top of a module that only a reader can give a use."""
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name, decorator_list=[]) | ast.ClassDef(name=name, bases=[], keywords=[]):
                yield name
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                if not name.startswith("__"):
                    yield name


def names_read(tree: ast.Module) -> Iterator[str]:
    """The names that a module reads, its own or those of others; an import alone reads nothing."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr


def test_what_waits_is_removed_only_where_holds_are_asked() -> None:
    found = [
        str(path.relative_to(SERVICE))
        for path in SOURCES
        for _, name in calls(ast.parse(path.read_text(encoding="utf-8")))
        if name.endswith("quarantine.remove")
    ]
    # Twice behind the question, and once where a reviewer approves: then it goes into the record and its holds.
    assert sorted(found) == ["holds/waiting.py", "holds/waiting.py", "memories/reviews.py"]
    deleting = {
        str(path.relative_to(SERVICE))
        for path in SOURCES
        if re.search(r"delete\((quarantine_table|QuarantineRow)", path.read_text(encoding="utf-8"))
    }
    assert deleting == {"storage/quarantine.py"}


def test_memories_are_deleted_in_one_way() -> None:
    found = [
        str(path.relative_to(SERVICE))
        for path in SOURCES
        for _, name in calls(ast.parse(path.read_text(encoding="utf-8")))
        if name.endswith("record.delete")
    ]
    # Elsewhere the texts in other tables, or the messages of the add, would be left behind.
    assert found == ["memories/deleting.py"]
