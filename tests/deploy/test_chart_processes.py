"""A release runs: its pods' own arguments, settings and secrets, as processes on real stores and not in a cluster."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import yaml

from tests.deploy.conftest import Release
from tests.process.fixtures import MakeMemvault
from tests.process.memvault import START_SECONDS, STOP_SECONDS, Memvault, add, command, eventually, search
from tests.qdrant.serving import Qdrant, qdrant

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


class Pods:
    """The pods of a release, each in a place of its own that holds what is mounted there and nothing else."""

    def __init__(self, release: Release, index: Qdrant, make_memvault: MakeMemvault) -> None:
        self.release = release
        self._index = index
        self._make = make_memvault

    def place(self, component: str) -> tuple[Memvault, list[str]]:
        """Return where a pod runs, and its arguments with the paths of that place."""
        spec = self.release.rendered.pods()[component]
        place = self._make()
        where = {"/var/lib/memvault": place.data_dir, "/tmp": place.temporary}
        for volume in spec["volumes"]:
            (mount,) = [one for one in spec["containers"][0]["volumeMounts"] if one["name"] == volume["name"]]
            folder = place.place / volume["name"]
            for path, content in self._files(volume).items():
                folder.mkdir(mode=0o700, exist_ok=True)
                (folder / path).write_text(content, encoding="utf-8")
                (folder / path).chmod(0o440)
            where.setdefault(mount["mountPath"], folder)

        def here(text: str) -> str:
            inside = [path for path in where if text == path or text.startswith(f"{path}/")]
            longest = max(inside, key=len, default="")
            return f"{where[longest]}{text.removeprefix(longest)}" if longest else text

        for variable in spec["containers"][0]["env"]:
            place.environ[variable["name"]] = here(variable["value"])
        for file in (place.place / "config").glob("*.yaml") if (place.place / "config").exists() else ():
            settings: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
            settings["data_dir"] = str(place.data_dir)
            if "index" in settings:
                assert settings["index"]["url"] == "http://mem-memvault-qdrant:6333"
                settings["index"] |= {"url": self._index.url, "grpc_port": None}
            if "signing_key" in settings.get("audit", {}):
                settings["audit"]["signing_key"] = here(settings["audit"]["signing_key"])
            if "port" in settings.get("metrics", {}):
                settings["metrics"] |= {"host": "127.0.0.1", "port": 0}
            file.chmod(0o600)
            file.write_text(yaml.safe_dump(settings), encoding="utf-8")
        return place, [here(argument) for argument in spec["containers"][0]["args"]]

    def run(self, component: str) -> subprocess.CompletedProcess[str]:
        """Run a pod that ends."""
        place, arguments = self.place(component)
        return place.run(*arguments, data_dir=False)

    def _files(self, volume: dict[str, Any]) -> dict[str, str]:
        if "configMap" in volume:
            name = volume["configMap"]["name"].removeprefix("mem-memvault").removeprefix("-")
            data: dict[str, str] = self.release.rendered.of("ConfigMap")[name]["data"]
            return data
        sources = [source["secret"] for source in volume.get("projected", {}).get("sources", [])]
        items = [item for source in [*sources, volume.get("secret", {})] for item in source.get("items", [])]
        return {item["path"]: self.release.secrets[item["key"]] for item in items}


@pytest.fixture
def pods(release: Release, make_memvault: MakeMemvault) -> Iterator[Pods]:
    with qdrant(api_key=release.secrets["qdrant-api-key"]) as index:
        yield Pods(release, index, make_memvault)


def refused_before(pods: Pods) -> str:
    place, arguments = pods.place("serve")
    return place.run(*arguments, "--host", "127.0.0.1", "--port", "0", data_dir=False).stderr


def test_a_release_is_migrated_serves_works_and_is_verified(pods: Pods) -> None:
    """Each pod with no more than it is given: the service without the signing key, the jobs without the index."""
    assert "memvault migrate" in refused_before(pods), "a service before the migration ends, and is started anew"
    migrated = pods.run("migrate")
    assert migrated.returncode == 0, migrated.stderr

    service, arguments = pods.place("serve")
    assert arguments[0] == "serve"
    service.start(*arguments[1:], "--host", "127.0.0.1")
    worker, arguments = pods.place("worker")
    printed = worker.place / "worker"
    with printed.open("wb") as out:
        process = subprocess.Popen(
            [*command(), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=worker.cwd,
            env=worker.environment(),
            start_new_session=True,
        )
    try:
        key = pods.release.secrets["bootstrap-key"]
        with service.client(key) as client:
            (memory_id,) = add(client, "alice keeps bees", user="alice")
            assert [one["id"] for one in search(client, "insects", user="alice")] == [memory_id]
            parts = client.get("/readyz").json()["parts"]
        assert parts["worker"]["status"] == "off"
        assert parts["audit sealing"]["status"] == "off"
        assert not (service.data_dir / "credentials.json").exists(), "no key is made where one is given"
        assert key not in service.printed
        assert "mv_" not in service.printed

        def probes() -> str | None:
            assert process.poll() is None, printed.read_text()[-2000:]
            found = re.search(r"probes and metrics on (http://\S+)", printed.read_text())
            return found[1] if found else None

        url = eventually(probes, seconds=START_SECONDS)
        ready = f"{url}/readyz"
        eventually(lambda: httpx.get(ready, trust_env=False, timeout=10).status_code == 200, seconds=START_SECONDS)

        place, arguments = pods.place("test")
        port = service.url.rpartition(":")[2]
        asked = [{"mem-memvault": "127.0.0.1", "8080": port}.get(argument, argument) for argument in arguments]
        answer = place.run(*asked, data_dir=False)
        assert answer.returncode == 0, answer.stderr
        swept = pods.run("sweep")
        assert swept.returncode == 0, swept.stderr
        assert "default: of 1 memories 0 were deleted" in swept.stdout

        def verified() -> str | None:
            """The worker has sealed the add by then, or will have soon."""
            done = pods.run("audit-verify")
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout if not done.stdout.startswith("0 rows") else None

        told = eventually(verified, seconds=60)
        assert "the trail is as it was sealed" in told
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_SECONDS) == 0
        assert service.stop(signal.SIGTERM) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(STOP_SECONDS)
