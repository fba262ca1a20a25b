"""`memvault tenant language`: which language a tenant's memories are in, for keyword search."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from service.cli.installation import installation_of
from service.cli.options import Config, DataDir, Json, show
from service.cli.tenants import LANGUAGES, NameOrId, app, document_of, language_of

_DEFAULT: Final = "default"


@app.command()
def language(
    tenant: NameOrId,
    name: Annotated[
        str | None, typer.Argument(metavar="[LANGUAGE]", help=f"{LANGUAGES}, or `default` for that of the settings.")
    ] = None,
    config: Config = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Say which language a tenant's memories are in, or show it; the words of all memories are then taken anew."""
    with installation_of(config, data_dir) as installation:
        found = installation.tenants.get(tenant)
        if name is None:
            spoken = installation.languages.of(found.id)
        else:
            spoken = installation.tenants.set_language(tenant, None if name == _DEFAULT else language_of(name))
    text = f"{found.name}: {spoken.language}, set for the {'tenant' if spoken.own else 'installation'}"
    if spoken.changed_at is not None:
        text += (
            f"; it was {spoken.former}, and the words of the memories are taken anew within minutes while it is served"
        )
    document = {
        **document_of(found),
        "language": spoken.language.value,
        "set_for": "tenant" if spoken.own else "installation",
        "changing": spoken.changed_at is not None,
    }
    show(document, as_json=json, text=text)
