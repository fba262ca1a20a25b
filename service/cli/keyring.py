"""`memvault keyring …`: change the key that wraps a keyring in a database, and move a keyring of files there."""

from __future__ import annotations

import typer

from service import wiring
from service.cli.installation import prepare_keyring
from service.cli.options import Config, DataDir, Json, settings_from, show

app = typer.Typer(help="The keyring in a database (keyring.url).", no_args_is_help=True)


@app.command("rewrap")
def rewrap(config: Config = None, data_dir: DataDir = None, json: Json = False) -> None:
    """Wrap all keys by keyring.wrapping_key, opening others by keyring.second_wrapping_key; while all runs."""
    count = wiring.rewrap_keyring(settings_from(config, data_dir))
    show({"rewrapped": count}, as_json=json, text=f"{count} keys were wrapped anew; drop keyring.second_wrapping_key")


@app.command("move")
def move(config: Config = None, data_dir: DataDir = None, json: Json = False) -> None:
    """Copy the keys and the journal from the folder into the database of keyring.url, while nothing serves."""
    settings = settings_from(config, data_dir)
    prepare_keyring(settings)
    moved = wiring.move_keyring(settings)
    left = f"when all is well, remove keys/tenants, keys/subjects and keys/master.key of {settings.keys_folder.parent}"
    document = {"keys": moved.keys, "tombstones": moved.tombstones, "from": str(settings.keys_folder)}
    text = f"{moved.keys} keys and {moved.tombstones} tombstones are in the database; {left}"
    show(document, as_json=json, text=text)
