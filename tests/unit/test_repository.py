"""What lies in the repository: the agreed top level, pins with hashes, no addresses of packages, no machine paths."""

import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
TOP_LEVEL = {
    *("pyproject.toml", "README.md", "Makefile", "service", "tests", "bench", "docs", "deploy", "config", ".ci"),
    *(
        "Dockerfile",
        ".dockerignore",
        "docker-compose.yml",
        "LICENSE",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "CHANGELOG.md",
        ".gitignore",
    ),
}

# Put together here, so that this file does not name what no file may name.
PACKAGE_HOSTS = [
    ".".join(labels)
    for labels in [
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("yarnpkg", "com"),
        ("anaconda", "org"),
    ]
]
MACHINE_PATHS = re.compile("|".join(f"(?<![\\w.])/{folder}/" for folder in ("work", "root", r"home/\w+", r"Users/\w+")))
# Images have a file system of their own, where such a path is the image's.
IMAGE_FILES = ("Dockerfile", "docker-compose.yml", "deploy/")

CLIENT_FILES = ["client-1.0.11.txt", "client-0.1.118.txt", "client-cli-0.2.13.txt"]
REQUIREMENT_FILES = ["runtime.txt", "test.txt", "sbom.txt", *CLIENT_FILES]
UNWANTED = {"torch", "sentence-transformers", "transformers", "fastembed", "spacy", "huggingface-hub", "hf-xet"}


@cache
def files() -> list[str]:
    """Everything that is in the repository or would be with the next `git add`, by path from the root."""
    git = ["git", "-c", "safe.directory=*", "-C", str(ROOT)]
    try:
        listing = subprocess.run(
            [*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            check=True,
            capture_output=True,
            text=True,
        )
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


def texts() -> dict[str, str]:
    """The files that are text."""
    found = {}
    for name in files():
        try:
            found[name] = (ROOT / name).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
    return found


def pins(file: str) -> list[tuple[Requirement, list[str]]]:
    """Each pinned requirement of a file, with its hashes."""
    text = (ROOT / "config" / "requirements" / file).read_text()
    lines = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    return [(Requirement(line.split("--hash=")[0].strip()), re.findall(r"--hash=(\S+)", line)) for line in lines]


def test_the_top_level_is_the_agreed_one() -> None:
    assert {name.split("/")[0] for name in files()} <= TOP_LEVEL
    assert "pyproject.toml" in files()


def test_no_file_names_a_package_registry() -> None:
    named = [(name, host) for name, text in texts().items() for host in PACKAGE_HOSTS if host in text]
    assert not named


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    named = [
        (name, found.group())
        for name, text in texts().items()
        if not name.startswith(IMAGE_FILES) and (found := MACHINE_PATHS.search(text))
    ]
    assert not named


@pytest.mark.parametrize("path", ["/".join(["", "work", "x"]), "/".join(["", "home", "me", "x"])])
def test_a_machine_path_is_recognised(path: str) -> None:
    assert MACHINE_PATHS.search(f"see {path}")
    assert not MACHINE_PATHS.search(f"https://example.com{path}")


def test_no_lock_file_with_addresses() -> None:
    locks = {"uv.lock", "poetry.lock", "Pipfile.lock", "pdm.lock", "package-lock.json", "yarn.lock"}
    assert not [name for name in files() if Path(name).name in locks]


@pytest.mark.parametrize("file", REQUIREMENT_FILES)
def test_every_pin_is_exact_and_hashed(file: str) -> None:
    assert pins(file)
    for requirement, hashes in pins(file):
        assert [clause.operator for clause in requirement.specifier] == ["=="], requirement
        assert hashes, requirement
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", digest) for digest in hashes), requirement


@pytest.mark.parametrize("file", REQUIREMENT_FILES)
def test_requirements_carry_no_address_and_nothing_unwanted(file: str) -> None:
    text = (ROOT / "config" / "requirements" / file).read_text()
    assert "://" not in text
    assert "--index-url" not in text
    assert "--find-links" not in text
    names = {canonicalize_name(requirement.name) for requirement, _ in pins(file)}
    assert not names & UNWANTED
    assert not {name for name in names if name.startswith("nvidia-")}


@pytest.mark.parametrize(
    ("file", "groups"), [("runtime.txt", ["model", "build"]), ("test.txt", ["model", "build", "test"])]
)
def test_pins_are_in_step_with_the_project(file: str, groups: list[str]) -> None:
    """Every declared dependency is pinned, at a version that its declaration allows; else run `make lock`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = [*project["project"]["dependencies"]]
    for group in groups:
        declared += project["dependency-groups"][group]
    pinned = [(canonicalize_name(requirement.name), requirement.specifier) for requirement, _ in pins(file)]

    for wanted in map(Requirement, declared):
        versions = [next(iter(exact)).version for name, exact in pinned if name == canonicalize_name(wanted.name)]
        assert versions, wanted
        assert all(wanted.specifier.contains(version, prereleases=True) for version in versions), wanted


def test_the_same_pythons_are_named_everywhere() -> None:
    """Of the package, of the two pages, of make, and of the environments that the pins are made for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    said = re.findall(r"Python :: (3\.\d+)", "\n".join(project["project"]["classifiers"]))
    assert project["project"]["requires-python"] == f">={said[0]}"
    last = int(said[-1].removeprefix("3."))
    assert all(f"python_full_version < '3.{last + 1}'" in one for one in project["tool"]["uv"]["environments"])
    for page in ("docs/operate/install.md", "CONTRIBUTING.md"):
        assert f"{', '.join(said[:-1])} or {said[-1]}" in (ROOT / page).read_text(encoding="utf-8"), page
    (candidates,) = re.findall(r"^CANDIDATES := python3 (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert candidates.split() == [f"python{version}" for version in reversed(said)]


def test_the_image_and_make_run_bring_every_extra() -> None:
    """What a setting can name must be there: the image has no pip, and the chart's values name object storage."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = [Requirement(one) for some in project["project"]["optional-dependencies"].values() for one in some]
    assert "boto3" in {one.name for one in extras}, "the audit trail's sink of `audit.s3` needs it"
    installed = {canonicalize_name(one.name): one.specifier for one, _ in pins("runtime.txt")}
    for wanted in extras:
        assert canonicalize_name(wanted.name) in installed, f"{wanted}: make lock"
        (exact,) = installed[canonicalize_name(wanted.name)]
        assert wanted.specifier.contains(exact.version, prereleases=True), wanted


def test_the_tests_run_on_what_the_service_runs_on() -> None:
    assert {str(requirement) for requirement, _ in pins("runtime.txt")} <= {
        str(requirement) for requirement, _ in pins("test.txt")
    }
