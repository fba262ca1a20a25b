"""`memvault worker` answers probes and metrics on a port of its own."""

from __future__ import annotations

import re
import signal
import subprocess

import httpx
import pytest

from tests.process.fixtures import MakeMemvault
from tests.process.memvault import START_SECONDS, STOP_SECONDS, command, eventually

pytestmark = pytest.mark.integration


def test_a_worker_tells_that_it_lives_and_how_everything_stands(make_memvault: MakeMemvault) -> None:
    # An issuer that nobody answers for: a worker has no use for its keys.
    place = make_memvault(
        MEMVAULT_METRICS__PORT="0",
        MEMVAULT_METRICS__INTERVAL="1",
        MEMVAULT_AUTH__OIDC__ISSUER="http://127.0.0.1:9",
        MEMVAULT_SERVER__PUBLIC_URL="http://127.0.0.1:8080",
    )
    place.json("migrate")
    printed = place.place / "worker"
    with printed.open("wb") as stdout, (place.place / "stderr").open("ab") as stderr:
        process = subprocess.Popen(
            [*command(), "worker", "--data-dir", str(place.data_dir)],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            cwd=place.cwd,
            env=place.environment(),
            start_new_session=True,
        )
    try:

        def address() -> str | None:
            assert process.poll() is None, place.stderr[-2000:]
            found = re.search(r"probes and metrics on (http://\S+)", printed.read_text())
            return found[1] if found else None

        url = eventually(address, seconds=START_SECONDS)
        with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
            # Before the stores are open, too.
            assert client.get("/healthz").status_code == 200
            eventually(lambda: client.get("/readyz").status_code == 200, seconds=START_SECONDS)
            assert client.get("/readyz").json()["parts"]["worker"] == {"status": "ok", "reason": None}
            assert client.get("/readyz").json()["parts"]["tokens"]["status"] == "off"
            assert client.get("/v1/ping/").status_code == 404
            told = eventually(lambda: _whole(client.get("/metrics").text), seconds=60)
        assert 'memvault_store_up{store="record"} 1.0' in told
        assert 'memvault_part_up{part="index"} 1.0' in told
        assert 'part="tokens"' not in told
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_SECONDS) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(STOP_SECONDS)


def _whole(text: str) -> str | None:
    """Return a scrape once a round through the tenants is over."""
    return text if "memvault_record_memories 0.0" in text and "memvault_index_points" in text else None
