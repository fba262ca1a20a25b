"""The image, played without Docker: built by its steps, then run on a read-only root without a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.image.container import play

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def seen() -> Mapping[str, Any]:
    """How it went."""
    document = play()
    return {"played": document["played"], "another": document["another"], **document["alone"]}


def test_the_steps_of_the_build_ran(seen: Mapping[str, Any]) -> None:
    made = [command.split("/")[-1] if "share" in command else command for command in seen["played"]]
    assert len(made) == 5
    assert made[-2:] == ["model", "postgres"]


def test_it_runs_as_nobody_who_may_anything(seen: Mapping[str, Any]) -> None:
    identity = seen["identity"]
    assert set(identity["uids"]) == set(identity["gids"]) == {"10001"}
    assert identity["capabilities"] == 0


def test_it_needs_no_shell_and_writes_to_its_volume_and_tmp_only(seen: Mapping[str, Any]) -> None:
    assert seen["shell"] is False
    assert seen["writable"] == ["/tmp", "/var/lib/memvault"]


def test_it_serves_without_a_network(seen: Mapping[str, Any]) -> None:
    """Healthy by its own probe; a memory is stored and found by its meaning."""
    assert seen["added"] == 200
    assert seen["found"] == ["I love Italian food"]


def test_it_serves_as_a_user_that_the_platform_chooses(seen: Mapping[str, Any]) -> None:
    """As on OpenShift: what is mounted into the image's folders is reached by any number, and a memory is found."""
    another = seen["another"]
    assert set(another["identity"]["uids"]) == {"1000650000"}
    assert set(another["identity"]["gids"]) == {"0"}
    assert another["identity"]["capabilities"] == 0
    assert (another["added"], another["found"], another["code"]) == (200, ["I love Italian food"], 0)


def test_it_ends_cleanly_and_leaves_nothing_running(seen: Mapping[str, Any]) -> None:
    assert seen["code"] == 0
    assert seen["left"] == []


def _composed() -> Mapping[str, Any]:
    composed: Mapping[str, Any] = play()["composed"]
    return composed


class TestUp:
    """`docker compose up`, played: each container of our image with its own root, user, volumes and secrets."""

    def test_it_gives_a_working_system(self) -> None:
        seen = _composed()
        assert (seen["added"], seen["found"]) == (200, ["I love Italian food"])
        assert seen["sealed"], "the worker signs checkpoints"

    def test_it_says_how_to_get_the_first_key(self) -> None:
        """The command that it prints was run; the key that this gave opened the service, and no log has one."""
        seen = _composed()
        assert "docker compose exec service memvault key create --tenant default --role admin" in seen["hint"]
        assert seen["printed"] == [False, False]

    def test_the_roles_are_neither_superusers_nor_is_the_service_the_owner(self) -> None:
        assert _composed()["roles"] == {
            "may": {"memvault_owner": False, "memvault_app": False},
            "owners": ["memvault_owner"],
        }

    def test_secrets_are_for_their_readers_only(self) -> None:
        files = _composed()["files"]
        for name in ("service", "worker", "migrate"):
            assert {tuple(one) for one in files[f"secrets-{name}"].values()} == {("0o400", 10001)}
        assert {tuple(one) for one in files["secrets"].values()} == {("0o400", 0)}

    def test_it_ends_cleanly_and_comes_up_again_with_what_was_stored(self) -> None:
        seen = _composed()
        assert seen["codes"] == [0, 0]
        assert seen["again"] == ["I love Italian food"]
