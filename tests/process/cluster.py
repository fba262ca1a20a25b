"""Services and workers as processes of their own on one Postgres, one Qdrant server, one keyring and one LLM."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from service import wiring
from service.settings import load_settings
from tests.llm.scripted import ScriptedLLM
from tests.process.memvault import REPOSITORY, Memvault, MemvaultWorker, eventually, free_port

#: The secret by which all know their first admin.
BOOTSTRAP: Final = "bootstrap-key-of-the-cluster-0123456789ab"
QDRANT_KEY: Final = "key-of-the-qdrant-server-0123456789abcdef"


class Cluster:
    """Two services, two workers, and what they share. `more` are settings, by section."""

    def __init__(
        self,
        folder: Path,
        urls: dict[str, str],
        llm: ScriptedLLM,
        model: Path,
        stack: ExitStack,
        more: dict[str, dict[str, Any]],
    ) -> None:
        signing = folder / "signing.pem"
        signing.write_bytes(
            Ed25519PrivateKey.generate().private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        signing.chmod(0o600)
        port = free_port()
        self.qdrant_url = f"http://127.0.0.1:{port}"
        qdrant = subprocess.Popen([sys.executable, "-m", "tests.qdrant.serving", str(port), QDRANT_KEY], cwd=REPOSITORY)
        stack.callback(qdrant.wait, 30)
        stack.callback(qdrant.terminate)
        settings: dict[str, dict[str, Any]] = {
            "database": dict(urls),
            "index": {"url": self.qdrant_url, "api_key": QDRANT_KEY, "grpc_port": None},
            "keyring": {"folder": str(folder)},
            "audit": {"signing_key": str(signing), "checkpoint_folder": str(folder / "checkpoints")},
            "llm": {"provider": "openai", "model": "scripted", "api_key": "sk-scripted", "base_url": llm.url},
            "queue": {"in_process": False},
        }
        for section, values in more.items():
            settings[section] = settings.get(section, {}) | values
        #: How a test reaches the database past all rules.
        self.admin_dsn = ""
        self.config = folder / "memvault.yaml"
        self.config.write_text(yaml.safe_dump(settings))
        self.services = [Memvault(model, MEMVAULT_BOOTSTRAP_KEY=BOOTSTRAP) for _ in range(2)]
        self.workers: list[Memvault] = [MemvaultWorker(model, MEMVAULT_BOOTSTRAP_KEY=BOOTSTRAP) for _ in range(2)]
        for process in self.processes:
            stack.callback(process.remove)

    @property
    def processes(self) -> list[Memvault]:
        """All of them."""
        return [*self.services, *self.workers]

    def start(self) -> None:
        """Start all at once, and return when all are up and extract."""
        for process in self.processes:
            process.spawn("--config", str(self.config))
        for process in self.processes:
            process.wait_ready()
        for service in self.services:
            eventually(partial(self._extracts, service), seconds=90)

    def start_one(self, process: Memvault) -> None:
        """Start one of them again, and return when it is up."""
        process.start("--config", str(self.config))

    @contextmanager
    def installation(self) -> Iterator[wiring.Installation]:
        """Open what commands work with, in the test's own process: a command takes seconds to start."""
        settings = load_settings(config=self.config, environ={}, flags={"data_dir": self.services[0].data_dir})
        with ExitStack() as stack:
            yield wiring.open_installation(settings, wiring.reach_record(settings, stack), stack)

    def json(self, *arguments: str) -> Any:
        """Run a command beside the first service."""
        return self.services[0].json(*arguments, "--config", str(self.config))

    @staticmethod
    def _extracts(service: Memvault) -> bool:
        with service.client(BOOTSTRAP) as client:
            return bool(client.get("/readyz").json()["parts"]["extraction"]["status"] == "ok")

    def qdrant(self, verb: str) -> None:
        """Let the Qdrant server `stop` or `go`."""
        httpx.post(f"{self.qdrant_url}/{verb}", trust_env=False, timeout=30).raise_for_status()
