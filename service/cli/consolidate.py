"""`memvault consolidate`: lists memories that newer ones make needless or untrue, and lets those stand for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any
from uuid import UUID

import typer

from service import wiring
from service.cli.installation import installation_of
from service.cli.options import Config, DataDir, Json, show
from service.errors import ConfigurationError
from service.scope import installation_caller
from service.storage.superseding import Link


def consolidate(
    tenant: Annotated[str | None, typer.Option(help="Name or id of one tenant. Default: all.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what says the same; ask nobody.")] = False,
    accept: Annotated[
        list[str] | None, typer.Option(help="Older memory to be superseded, by its id; repeat it.")
    ] = None,
    dismiss: Annotated[
        list[str] | None, typer.Option(help="Older memory to be left alone for good, by its id.")
    ] = None,
    accept_all: Annotated[bool, typer.Option("--accept-all", help="Accept all that is proposed.")] = False,
    config: Config = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Propose to let newer memories stand for those that say the same or are no longer so; accept or dismiss it."""
    if bool(accept) + bool(dismiss) + accept_all + dry_run > 1:
        raise ConfigurationError("consolidate: give one of --dry-run, --accept, --dismiss and --accept-all")
    documents: list[dict[str, Any]] = []
    with installation_of(config, data_dir) as installation:
        consolidations = installation.consolidations
        changed = None if dry_run else wiring.open_changed(installation)
        found = [installation.tenants.get(tenant)] if tenant else installation.tenants.list()
        ids = _ids([*(accept or []), *(dismiss or [])]) if accept or dismiss else None
        active = [each for each in found if each.status == "active"]
        if ids is not None:
            there = {
                link.older_id for one in active for link in consolidations.proposed(installation_caller(one.id).scope)
            }
            if missing := sorted(str(one) for one in set(ids) - there):
                raise ConfigurationError(
                    f"consolidate: nothing is proposed of {', '.join(missing)}; nothing was decided"
                )
        for one in active:
            caller = installation_caller(one.id)
            decided: Sequence[Link] = []
            if accept or dismiss or accept_all:
                decided = consolidations.decide(caller, caller.scope, ids, accept=not dismiss)
                proposed = consolidations.proposed(caller.scope)
            else:
                proposed = consolidations.run(caller, caller.scope, dry=dry_run, changed=changed)
            documents.append(
                {
                    "tenant_id": str(one.id),
                    "tenant": one.name,
                    "proposed": [_document(link) for link in proposed],
                    "decided": [_document(link) for link in decided],
                }
            )
    lines = []
    for document in documents:
        lines.append(f"{document['tenant']}: {len(document['proposed'])} proposed, {len(document['decided'])} decided")
        lines += [
            f"  {link['older_id']}  superseded by  {link['newer_id']}  ({link['kind']})"
            for link in document["proposed"]
        ]
    show({"dry_run": dry_run, "tenants": documents}, as_json=json, text="\n".join(lines))


def _document(link: Link) -> dict[str, str]:
    return {"older_id": str(link.older_id), "newer_id": str(link.newer_id), "kind": link.kind}


def _ids(texts: Sequence[str]) -> list[UUID]:
    try:
        return [UUID(text) for text in texts]
    except ValueError:
        raise ConfigurationError("consolidate: --accept and --dismiss take ids of memories") from None
