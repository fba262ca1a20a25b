"""Commands in odd surroundings: an output that nobody reads or that is full, another encoding, files of no use."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import httpx
import pytest

from tests.process.fixtures import MakeMemvault
from tests.process.memvault import Memvault, command, eventually, free_port

pytestmark = pytest.mark.integration

#: A name that no file can have: whoever looks for it gets an error, root too.
IMPOSSIBLE = "/tmp/" + "x" * 300


def ended(
    memvault: Memvault,
    *arguments: str,
    output: int | None = None,
    **environ: str,
) -> subprocess.CompletedProcess[bytes]:
    """Run a command with another standard output."""
    return subprocess.run(
        [*command(), *arguments, "--data-dir", str(memvault.data_dir)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if output is None else output,
        stderr=subprocess.PIPE,
        cwd=memvault.cwd,
        env=memvault.environment(**environ),
        timeout=180,
        check=False,
    )


def unread() -> int:
    """The end of a pipe that nobody reads any more, as behind `| head`."""
    reads, writes = os.pipe()
    os.close(reads)
    return writes


def test_an_output_that_nobody_reads_is_no_error_to_tell(served: Memvault) -> None:
    pipe = unread()
    try:
        done = ended(served, "tenant", "list", output=pipe)
    finally:
        os.close(pipe)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_an_output_that_is_full_is_told(served: Memvault) -> None:
    """Nobody takes a key for made and shown whose secret went nowhere."""
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        done = ended(served, "key", "create", "--tenant", "default", "--json", output=full)
    finally:
        os.close(full)
    assert done.returncode == 2
    assert done.stderr == b"memvault: a file or the output cannot be written (No space left on device)\n"


def test_a_terminal_that_is_not_in_utf_8_gets_what_it_can_show(served: Memvault) -> None:
    done = ended(served, "key", "list", "--tenant", "default", PYTHONIOENCODING="iso-8859-15")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"active" in done.stdout
    plain = ended(served, "key", "list", "--tenant", "default", LC_ALL="C")
    assert (plain.returncode, "…" in plain.stdout.decode()) == (0, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("audit", "verify", "--checkpoints", IMPOSSIBLE),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_name_that_no_file_can_have_is_one_line(served: Memvault, arguments: tuple[str, ...]) -> None:
    """For `audit verify` 1 would say that the trail was changed."""
    done = ended(served, *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("memvault: ")
    assert IMPOSSIBLE in line
    assert "File name too long" in line


@pytest.mark.parametrize("url", ["http://[::1", "http://127.0.0.1:port", "memory.example.com"])
def test_an_address_that_is_none_is_one_line(served: Memvault, url: str) -> None:
    done = ended(served, "mcp", "--url", url)
    assert done.returncode == 2
    assert done.stderr == b"memvault: --url: must be an address such as http://127.0.0.1:8080\n"


def test_a_service_whose_output_nobody_reads_serves_and_ends_in_order(make_memvault: MakeMemvault) -> None:
    memvault = make_memvault()
    pipe = unread()
    try:
        process = subprocess.Popen(
            [*command(), "serve", "--port", "0", "--data-dir", str(memvault.data_dir)],
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=subprocess.PIPE,
            cwd=memvault.cwd,
            env=memvault.environment(),
        )
    finally:
        os.close(pipe)
    memvault.process = process
    eventually((memvault.data_dir / "credentials.json").exists, seconds=90)
    memvault.url = memvault.credentials["url"]
    with memvault.client() as client:
        eventually(lambda: client.get("/readyz").status_code == 200, seconds=90)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    memvault.process = None
    assert process.returncode == 0, said.decode()
    assert b"BrokenPipe" not in said


def test_a_worker_whose_output_nobody_reads_works(make_memvault: MakeMemvault) -> None:
    memvault = make_memvault()
    memvault.json("migrate")
    port = str(free_port())
    pipe = unread()
    try:
        process = subprocess.Popen(
            [*command(), "worker", "--data-dir", str(memvault.data_dir)],
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=subprocess.PIPE,
            cwd=memvault.cwd,
            env=memvault.environment(MEMVAULT_METRICS__PORT=port),
        )
    finally:
        os.close(pipe)
    memvault.process = process
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
        eventually(lambda: client.get("/readyz").status_code == 200, seconds=90)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    memvault.process = None
    assert process.returncode == 0, said.decode()


def test_the_doctor_tells_of_a_folder_that_it_cannot_look_at(memvault: Memvault) -> None:
    done = subprocess.run(
        [*command(), "doctor", "--json", "--data-dir", IMPOSSIBLE],
        capture_output=True,
        cwd=memvault.cwd,
        env=memvault.environment(),
        timeout=180,
        check=False,
    )
    parts = {part["name"]: part for part in json.loads(done.stdout)["parts"]}
    assert done.returncode == 1
    assert parts["data folder"]["state"] == "failed"
    assert "File name too long" in parts["data folder"]["reason"]
