"""Through which connector a memory came: a key that is bound to one writes its name into all that it writes."""

from __future__ import annotations

from typing import Final

from service.audit.details import Reason
from service.errors import Forbidden
from service.memories.stores import Stores
from service.records import Metadata
from service.scope import Action, Caller

#: The metadata key that names the connector.
CONNECTOR: Final = "connector"


def check_connector(stores: Stores, caller: Caller, action: Action, metadata: Metadata) -> None:
    """Return unless a caller that is bound to a connector names another one; null names none.

    Raises:
        Forbidden: otherwise; the refusal is in the trail by then.
    """
    own = caller.principal.connector
    if own is None or metadata.get(CONNECTOR) in (None, own):
        return
    stores.trail.refuse(caller, action, Reason.CONNECTOR)
    raise Forbidden("metadata.connector: this key is bound to a connector; name that one, or leave it out")


def with_connector(metadata: Metadata, own: str | None, *, before: Metadata | None = None) -> Metadata:
    """Return the metadata of a write by a caller that is bound to the connector `own`, as it is to be stored.

    What a changed memory (`before`) came through stays, unless the caller names its own connector.
    """
    if own is None or metadata.get(CONNECTOR) is not None:
        return metadata
    kept = None if before is None else before.get(CONNECTOR)
    return {**metadata, CONNECTOR: own if kept is None else kept}
