"""A process that cannot start a thread for a moment goes on as before once it can again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from service.auth.signing_keys import SigningKeys
from service.errors import Unavailable
from service.settings import Oidc
from service.wiring.asking_briefly import BrieflyAsked

pytestmark = pytest.mark.unit

NoThreads = Callable[[], AbstractContextManager[None]]


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> NoThreads:
    """Let no thread start in a block, as at a limit of processes."""

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    @contextmanager
    def limited() -> Iterator[None]:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", start)
            yield

    return limited


def test_a_store_is_asked_again_when_there_was_no_thread_to_ask_it(no_threads: NoThreads) -> None:
    asked = BrieflyAsked(lambda: None)
    with no_threads(), pytest.raises(RuntimeError):
        asked.ask()
    asked.ask()


def test_signing_keys_are_fetched_when_there_was_no_thread_to_fetch_them_before(no_threads: NoThreads) -> None:
    keys = SigningKeys(Oidc(issuer="https://127.0.0.1:1"))
    with no_threads():
        keys.start()
    assert keys.state()[0] == "starting"
    with pytest.raises(Unavailable):
        keys.get("one", "RS256")
    assert keys.state() == ("failed", "auth.oidc: the issuer does not answer (ConnectError)")
