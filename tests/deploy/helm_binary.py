"""Helm, at a pinned version: built by `make test-deps` where Go is, found by the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

VERSION: Final = "v3.22.0"
#: What `helm lint` and a dry run of `helm install` render for.
KUBERNETES: Final = "1.33"
_MODULE: Final = "helm.sh/helm/v3"
_BUILD_SECONDS: Final = 900
#: Where `make test-deps` puts it.
INSTALLED: Final = Path(__file__).resolve().parents[2] / ".venv" / "bin" / "helm"
_MISSING: Final = "helm is not installed: needs Go when `make test-deps` runs"


class NotInstalled(Exception):
    """Helm is not there, and why."""


def find(binary: Path = INSTALLED) -> Path:
    """Return Helm of the pinned version; no network is asked.

    Raises:
        NotInstalled: when it is not there.
    """
    if not binary.is_file():
        raise NotInstalled(_MISSING)
    said = subprocess.run([binary, "version", "--template", "{{.Version}}"], capture_output=True, text=True, check=True)
    if said.stdout.strip() != VERSION:
        raise NotInstalled(f"helm is {said.stdout.strip()}, not {VERSION}: run `make test-deps` again")
    return binary


def install(binary: Path) -> Path:
    """Build Helm into a folder, with Go's own caches, and return it.

    Raises:
        NotInstalled: without Go, or when it cannot be built.
    """
    try:
        return find(binary)
    except NotInstalled:
        pass
    go = shutil.which("go")
    if go is None:
        raise NotInstalled(_MISSING)
    # What Helm's own build tells it: its version, and the Kubernetes that it takes for granted without a cluster.
    told = {"internal/version.version": VERSION}
    for package in ("pkg/chartutil", "pkg/lint/rules"):
        told |= {f"{package}.k8sVersionMajor": "1", f"{package}.k8sVersionMinor": KUBERNETES.removeprefix("1.")}
    stamp = " ".join(["-s -w", *(f"-X {_MODULE}/{name}={value}" for name, value in told.items())])
    command = [go, "install", "-trimpath", f"-ldflags={stamp}", f"{_MODULE}/cmd/helm@{VERSION}"]
    # A module or a workspace around this folder, and flags for other builds, are none of this one's business.
    environ = {**os.environ, "GOBIN": str(binary.parent), "GOFLAGS": "", "GOWORK": "off", "CGO_ENABLED": "0"}
    try:
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=_BUILD_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"helm could not be built within {_BUILD_SECONDS} s") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise NotInstalled(f"helm could not be built: {lines[-1] if lines else done.returncode}")
    return find(binary)


if __name__ == "__main__":
    try:
        install(INSTALLED)
    except NotInstalled as reason:
        print(f"The tests of the Helm chart will be skipped: {reason}")
