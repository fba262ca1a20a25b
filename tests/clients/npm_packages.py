"""The official TypeScript clients and the conformance suite: installed by `make test-deps`, found by the tests."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

NPM = Path(__file__).parent / "npm"
#: Where `make test-deps` puts the packages.
INSTALLED = Path(__file__).resolve().parents[2] / ".venv" / "npm"
#: Where the conformance suite is, from the folder of the packages.
CONFORMANCE = ("node_modules", "@modelcontextprotocol", "conformance")
#: The oldest Node that all the packages run on.
OLDEST_NODE = 20
_INSTALL_SECONDS = 180


class NotInstalled(Exception):
    """The packages are not there, and why."""


@dataclass(frozen=True)
class NodePackages:
    """An installed set of packages. `major` is the version of Node."""

    node: str
    major: int
    folder: Path

    def run(self, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run Node in the folder of the packages."""
        return subprocess.run(
            [self.node, *arguments], cwd=self.folder, capture_output=True, text=True, timeout=timeout, check=False
        )

    def conformance(self, *arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run the conformance suite."""
        main = self.folder.joinpath(*CONFORMANCE, "dist", "index.js")
        shim = ["--import", str(self.folder / "node20.mjs")] if self.major < 22 else []
        return self.run(*shim, str(main), *arguments, timeout=timeout)


def find(folder: Path = INSTALLED) -> NodePackages:
    """Return the packages that `install` put into a folder; no network is asked.

    Raises:
        NotInstalled: without Node, or when one of the packages is not there.
    """
    node = shutil.which("node")
    if node is None:
        raise NotInstalled("node is not installed")
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    major = int(re.findall(r"\d+", said)[0])
    if major < OLDEST_NODE:
        raise NotInstalled(f"Node {said.strip()} is older than {OLDEST_NODE}")
    wanted = json.loads((NPM / "package.json").read_text(encoding="utf-8"))["dependencies"]
    missing = [name for name in wanted if not (folder / "node_modules" / name).is_dir()]
    if missing:
        raise NotInstalled(f"`make test-deps` could not install {', '.join(missing)}")
    return NodePackages(node, major, folder)


def install(folder: Path) -> NodePackages:
    """Install the packages into a folder, npm's cache included, and return them.

    Raises:
        NotInstalled: without Node or npm, or when the packages cannot be had.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise NotInstalled("npm is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    for file in NPM.iterdir():
        shutil.copy(file, folder)
    command = [npm, "install", "--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
    command += ["--fetch-retries=1", "--fetch-timeout=30000", "--prefix", str(folder), "--cache", str(folder / "cache")]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"npm install did not end within {_INSTALL_SECONDS} s") from None
    if done.returncode:
        told = [line for line in done.stderr.splitlines() if line.startswith("npm error")]
        raise NotInstalled(f"npm install failed: {' '.join(told[:2]) or done.returncode}")
    shutil.rmtree(folder / "cache", ignore_errors=True)
    return find(folder)


if __name__ == "__main__":
    try:
        install(INSTALLED)
    except NotInstalled as reason:
        print(f"The tests with the TypeScript clients will be skipped: {reason}")
