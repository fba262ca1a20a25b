"""`memvault erase` erases a user, agent, app, run or connector; `memvault verify-receipt` checks a receipt offline."""

from __future__ import annotations

import json as json_module
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.progress import Progress

from service import clock, wiring
from service.audit.assembly import trusted_keys
from service.audit.signing import TrustedKeys, read_public_keys
from service.cli.installation import open_migrated
from service.cli.options import Config, DataDir, Json, settings_from, show
from service.cli.progress import spinner
from service.errors import ConfigurationError, MemvaultError
from service.index.interface import IndexLocked
from service.retention.ledger import Erasure, ErasureKind, ErasureStatus, Target
from service.retention.physical import said
from service.retention.receipts import verify

_POLL_SECONDS: Final = 0.2
#: Seconds after which an erasure that no worker takes up is not waited for any longer.
_NOBODY_SECONDS: Final = 60.0


def erase(
    tenant: Annotated[str | None, typer.Option("--tenant", help="Name or id of the tenant.")] = None,
    user: Annotated[str | None, typer.Option("--user", help="The user to erase.")] = None,
    agent: Annotated[str | None, typer.Option("--agent", help="The agent to erase.")] = None,
    app_: Annotated[str | None, typer.Option("--app", help="The app to erase.")] = None,
    run: Annotated[str | None, typer.Option("--run", help="The run to erase.")] = None,
    connector: Annotated[str | None, typer.Option("--connector", help="The connector that was removed.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait for the receipt.")] = True,
    config: Config = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Erase one of --user, --agent, --app, --run, --connector, beside a running service or without one."""
    given = {
        ErasureKind.USER: user,
        ErasureKind.AGENT: agent,
        ErasureKind.APP: app_,
        ErasureKind.RUN: run,
        ErasureKind.CONNECTOR: connector,
    }
    targets = [Target(kind, name) for kind, name in given.items() if name is not None]
    if tenant is None or len(targets) != 1:
        raise ConfigurationError("erase: give --tenant and exactly one of --user, --agent, --app, --run, --connector")
    with ExitStack() as stack:
        installation = open_migrated(settings_from(config, data_dir), stack)
        found = installation.tenants.get(tenant)
        erasure = installation.erasures.request_for_installation(found.id, targets[0])
        if wait:
            erasure = follow(installation, erasure, stack, quiet=json)
    show(document_of(erasure), as_json=json, text=told(erasure))


def verify_receipt(
    file: Annotated[Path, typer.Argument(help="The receipt, as `memvault erase --json` or the API gave it.")],
    public_key: Annotated[
        Path | None,
        typer.Option("--public-key", help="PEM file with the public keys to trust."),
    ] = None,
    config: Config = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Check the signature of a receipt, offline; exit code 1 when it is not as it was signed."""
    keys = trusted_keys(settings_from(config, data_dir)) if public_key is None else _read(public_key)
    if not len(keys):
        raise ConfigurationError("--public-key: is needed; `memvault audit public-key` prints it where the key is")
    try:
        document: Any = json_module.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ConfigurationError(f"{file}: cannot be read as JSON") from None
    if isinstance(document, dict) and isinstance(document.get("receipt"), dict) and "signatures" not in document:
        # A whole erasure, with the receipt in it.
        document = document["receipt"]
    verdict = verify(document, keys)
    shown = {"ok": verdict.ok, "reason": verdict.reason, "receipt": dict(verdict.receipt)}
    text = "the receipt is as it was signed" if verdict.ok else f"BAD: {verdict.reason}"
    show(shown, as_json=json, text=text)
    if not verdict.ok:
        raise SystemExit(1)


def follow(installation: wiring.Installation, erasure: Erasure, stack: ExitStack, *, quiet: bool) -> Erasure:
    """Wait until an erasure is completed, or due later, and return it; carry it out here where that can be done.

    That is with no service running, in a process that has the key which signs receipts.

    Raises:
        MemvaultError: when no worker takes it up.
    """
    if erasure.status is ErasureStatus.SCHEDULED:
        return erasure
    with spinner(quiet=quiet) as progress:
        bar = progress.add_task("erasing", total=None)
        if not installation.settings.embedded and installation.settings.audit.signing_key is None:
            # As in the pod of a service: whoever cannot sign the receipt leaves all of it to the worker, who can.
            return _waited(installation, erasure, progress, bar)
        try:
            services = wiring.open_services(installation, stack, upkeep=False, faces=False)
        except IndexLocked:
            # The folder belongs to the serving process: its worker does the work.
            return _waited(installation, erasure, progress, bar)
        services.erasing.finish(erasure.tenant_id, erasure.id)
        return installation.erasures.look(erasure.tenant_id, erasure.id)


def document_of(erasure: Erasure) -> dict[str, Any]:
    """Return an erasure as the command prints it."""
    return {
        "erasure_id": str(erasure.id),
        "tenant_id": str(erasure.tenant_id),
        "kind": erasure.kind.value,
        "status": erasure.status.value,
        "due_at": erasure.due_at.isoformat() if erasure.due_at else None,
        "removed": dict(erasure.removed),
        "physical": said(erasure.physical),
        "receipt": erasure.receipt,
    }


def told(erasure: Erasure) -> str:
    """Return an erasure in words."""
    if erasure.status is ErasureStatus.SCHEDULED and erasure.due_at is not None:
        return f"erasure {erasure.id} is due on {erasure.due_at.isoformat()}: a minimum retention keeps it until then"
    if erasure.status is not ErasureStatus.COMPLETED:
        return f"erasure {erasure.id} is {erasure.status.value}"
    rows = ", ".join(f"{count} {name}" for name, count in sorted(erasure.removed.items())) or "nothing"
    reason = "" if erasure.physical is None else erasure.physical.get("reason", "")
    physical = f"physical: {said(erasure.physical)}" + (f" ({reason})" if reason else "")
    return f"erasure {erasure.id} is completed: {rows} removed, nothing left; {physical}"


def _waited(installation: wiring.Installation, erasure: Erasure, progress: Progress, bar: Any) -> Erasure:
    asked = clock.monotonic()
    seen: Any = None
    while True:
        now = installation.erasures.look(erasure.tenant_id, erasure.id)
        if now.status is ErasureStatus.COMPLETED:
            return now
        state = (now.status, dict(now.removed))
        if state != seen:
            seen, asked = state, clock.monotonic()
            progress.update(bar, description=f"{now.status.value}, {sum(now.removed.values())} rows removed")
        if clock.monotonic() - asked > _NOBODY_SECONDS + installation.settings.erasure.physical_delay:
            raise MemvaultError(
                f"nothing has moved for a minute; the erasure stays queued as {erasure.id}. A process must run the"
                " queue (the service by queue.in_process, or `memvault worker`), and its log says what fails"
            )
        time.sleep(_POLL_SECONDS)


def _read(path: Path) -> TrustedKeys:
    return TrustedKeys(read_public_keys(path))
