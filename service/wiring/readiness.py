"""What an open service tells of its parts: every store and feature by name, with its state and the reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.errors import MemvaultError
from service.index.failures import incomplete
from service.index.interface import Index
from service.wiring.notifying import webhook_state
from service.wiring.sealing import sealing_state

if TYPE_CHECKING:
    from service.wiring import Services


@dataclass(frozen=True, slots=True)
class Part:
    """One store or feature and its state, for `/readyz` and `memvault doctor`."""

    name: str
    state: str
    reason: str | None = None
    needed: bool = False

    @property
    def blocks(self) -> bool:
        """Whether requests cannot be served because of this part."""
        return self.needed and self.state != "ok"


def parts_of(services: Services) -> list[Part]:
    """Return every store and feature with its state; cheap enough to be asked every second."""
    # Both are asked before either is waited for.
    record, keyring = services.record_asked.begin(), services.keyring_asked.begin()
    model = services.change.state()
    return [
        _store("record", record),
        _store("keyring", keyring),
        _index(services),
        Part("upkeep", *(services.upkeep.state() if services.upkeep else ("off", "another process keeps the index"))),
        Part("embeddings", "ok", needed=True),
        *([] if model is None else [Part("embedding model", *model)]),
        Part("extraction", *services.engine.state()),
        *(Part(name, *state) for name, state in services.engine.features().items()),
        *(Part(name, *state) for name, state in services.index.features().items()),
        Part("tokens", *services.authenticator.token_state()),
        Part("webhooks", *webhook_state(services.settings)),
        _worker(services),
        Part("audit sealing", *sealing_state(services)),
    ]


def ask_index(index: Index) -> None:
    """Return once the index has answered.

    Raises:
        IndexUnavailable: when it does not, or lacks what the record has.
    """
    if not index.is_complete():
        # A server that has lost its data, which the upkeep will notice too.
        raise incomplete()
    index.count()


def _store(name: str, answer: Callable[[], object]) -> Part:
    try:
        answer()
    except MemvaultError as error:
        return Part(name, "failed", error.detail, needed=True)
    return Part(name, "ok", needed=True)


def _index(services: Services) -> Part:
    """Searches alone need the index, so it takes no service out of rotation; one that starts looks at it first."""
    if not services.indexing.looked:
        return Part("index", "starting", "it is being looked at whether the index is whole", needed=True)
    try:
        services.indexing.check()
        services.index_asked.ask()
    except MemvaultError as error:
        return Part("index", "failed", error.detail)
    return Part("index", "ok")


def _worker(services: Services) -> Part:
    if services.settings.worker_in_process or services.keepers:
        return Part("worker", "ok")
    return Part("worker", "off", "queue.in_process is off: nothing extracts here")
