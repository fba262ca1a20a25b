"""`memvault audit …`: verifies and exports the trail, proves single rows, seals, and drops what is old."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Annotated, Any, Final
from uuid import UUID

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from service import clock, wiring
from service.audit.assembly import checkpoint_folder, trusted_keys
from service.audit.chain import Chain, read_chain
from service.audit.ledger import Drop, Ledger, StoredCheckpoints
from service.audit.lines import Section, read_export, stored_sections, write_export
from service.audit.marks import Listed, Source
from service.audit.proofs import Proofs
from service.audit.restoring import Restoring
from service.audit.signing import TrustedKeys, key_id, public_pem, read_public_keys
from service.audit.sinks.folder import CheckpointFiles
from service.audit.verify import Report, Verifier
from service.cli.installation import installation_of
from service.cli.options import Config, DataDir, Json, settings_from, show
from service.cli.streams import complain
from service.errors import ConfigurationError, Unavailable
from service.scope import SYSTEM_TENANT, TenantId
from service.settings import Settings
from service.storage.database import Database

app = typer.Typer(help="The audit trail.", no_args_is_help=True)

#: Problems, and tenants that have one, that a person is told of; the document has more of them.
_MOST_TOLD: Final = 20

CheckpointsOption = Annotated[
    Path | None, typer.Option("--checkpoints", help="Exported checkpoints: a folder or a file. Default: as configured.")
]
KeyOption = Annotated[
    Path | None, typer.Option("--public-key", help="PEM file with the public keys to trust. Default: as configured.")
]


@app.command()
def verify(
    tenant: Annotated[str | None, typer.Option(help="Name or id of one tenant. Default: all.")] = None,
    checkpoints: CheckpointsOption = None,
    export: Annotated[Path | None, typer.Option(help="Verify this export, without the service's database.")] = None,
    public_key: KeyOption = None,
    config: Config = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Verify the trail against its signed checkpoints; exit code 1 when anything is not as it was sealed, 2 untold."""
    settings = settings_from(config, data_dir)
    keys = _keys(settings, public_key)
    exported = _exported(settings, checkpoints, needed=export is not None)
    with _progress(json) as progress, _untold():
        if export is not None:
            only = None if tenant is None else _uuid(tenant)
            report = _verify(read_chain(exported, (), keys), read_export(export), only, progress)
        else:
            with installation_of(config, data_dir) as installation:
                ledger = Ledger(installation.database)
                only = None if tenant is None else _tenant(installation, tenant)
                dropped = ledger.drops()
                chain = read_chain(exported, StoredCheckpoints(ledger), keys)
                tenants = wiring.audited_tenants(installation) if only is None else [TenantId(only)]
                sections = stored_sections(installation.database, ledger, tenants)
                report = _verify(chain, sections, only, progress)
                if not report.ok:
                    _refuse_dropped(ledger, dropped)
                if only is None:
                    # For the metrics: that the trail is verified is worth an alert when it stops.
                    wiring.note_verification(installation, ok=report.ok)
    document = report.document(now=clock.now())
    show(document, as_json=json, text=_told(report, document))
    if not report.ok:
        raise SystemExit(1)


@app.command()
def prove(
    row_id: Annotated[UUID, typer.Argument(help="Id of a row of the trail.")],
    tenant: Annotated[str, typer.Option(help="Name or id of the tenant.")],
    config: Config = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Print the proof that a row is under a signed checkpoint; anyone with the public key can check it."""
    with installation_of(config, data_dir) as installation:
        proofs = Proofs(installation.database, Ledger(installation.database))
        proof = proofs.prove(TenantId(_tenant(installation, tenant)), row_id)
    show(proof, as_json=json, text=orjson.dumps(proof, option=orjson.OPT_INDENT_2).decode())


@app.command()
def checkpoint(config: Config = None, data_dir: DataDir = None, json: Json = False) -> None:
    """Seal everything that is final, at once, and bring the checkpoints to the configured places."""
    with installation_of(config, data_dir) as installation:
        sealing = wiring.seal_trail(installation)
        sealing.keeper.compare_heads()
        rows = 0
        while True:
            sealed = sealing.keeper.round(full=True)
            rows += sealed.rows
            if sealed.checkpoint is None or not sealed.more:
                break
        reached = sealing.keeper.deliver()
        with installation.database.tenant_blind() as connection:
            head = sealing.ledger.head(connection)
        state, reason = sealing.keeper.state()
    number = 0 if head is None else head.body.number
    document = {"number": number, "rows": rows, "sinks": reached, "state": state, "reason": reason}
    places = ", ".join(f"{name} is at {at}" for name, at in reached.items()) or "no place outside is configured"
    show(document, as_json=json, text=f"checkpoint {number}, {rows} rows newly sealed; {places}")
    if state != "ok":
        raise SystemExit(1)


@app.command("public-key")
def public_key_(config: Config = None, data_dir: DataDir = None, json: Json = False) -> None:
    """Print the public keys that checkpoints are signed with, as PEM; give them to whoever verifies."""
    with installation_of(config, data_dir) as installation:
        keys = wiring.seal_trail(installation).signer.public_keys()
    document = [{"key_id": key_id(key), "pem": public_pem(key)} for key in keys]
    show(document, as_json=json, text="".join(public_pem(key) for key in keys).rstrip())


@app.command("export-trail")
def export_trail(
    file: Annotated[Path, typer.Argument(help="New file to write: one canonical row a line.")],
    tenant: Annotated[str | None, typer.Option(help="Name or id of one tenant. Default: all.")] = None,
    checkpoints: Annotated[
        Path | None, typer.Option(help="Also write the checkpoints of the database to this new file.")
    ] = None,
    config: Config = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Write what `verify --export` needs: the trail as canonical rows, and the checkpoints."""
    with installation_of(config, data_dir) as installation, _progress(json) as progress, ExitStack() as stack:
        ledger = Ledger(installation.database)
        tenants = wiring.audited_tenants(installation)
        if tenant is not None:
            tenants = [TenantId(_tenant(installation, tenant))]
        out = stack.enter_context(_new_file(file))
        dropped = ledger.drops()
        if checkpoints is not None:
            stack.enter_context(_new_file(checkpoints)).writelines(one.line() + b"\n" for one in ledger.all())
        rows = write_export(out, stored_sections(installation.database, ledger, tenants), progress=progress)
        _refuse_dropped(ledger, dropped)
    show({"file": str(file), "rows": rows}, as_json=json, text=f"{rows} rows in {file}")


@app.command("drop-old")
def drop_old(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be dropped.")] = False,
    config: Config = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Drop the parts of the trail that are older than `audit.retention_days`; their signed checkpoints stay."""
    with installation_of(config, data_dir) as installation:
        keep_days = installation.settings.audit.retention_days
        if keep_days is None:
            raise ConfigurationError("audit.retention_days: is not set, so the trail is kept for ever")
        sealing, tenants = wiring.seal_trail(installation), wiring.audited_tenants(installation)
        if dry_run:
            parts = sealing.old_parts.find(tenants, keep_days)
        else:
            with _as(installation.connections.maintenance_dsn, "database.maintenance_url") as maintenance:
                parts = sealing.old_parts.drop(tenants, keep_days, maintenance)
    document = [{"tenant_id": str(part.tenant_id), "rows": part.rows} for part in parts]
    rows = sum(part.rows for part in parts)
    verb = "would be dropped" if dry_run else "were dropped"
    show({"dry_run": dry_run, "dropped": document}, as_json=json, text=f"{rows} rows of {len(parts)} tenants {verb}")


@app.command()
def restored(
    checkpoints: CheckpointsOption = None, config: Config = None, data_dir: DataDir = None, json: Json = False
) -> None:
    """Declare that the database was restored to an earlier state, signed, so that sealing goes on."""
    with installation_of(config, data_dir) as installation, ExitStack() as stack:
        sealing = wiring.seal_trail(installation)
        named = () if checkpoints is None else CheckpointFiles(checkpoints).places()
        last = sealing.keeper.find_newest(checkpoint for _, checkpoint in named)
        if last is None:
            raise ConfigurationError(
                "--checkpoints: is needed: the folder or file with the exported checkpoints; no place of the settings "
                "(audit.checkpoint_folder, audit.s3.bucket) has one as new as the database's, and the database is not "
                "one without a place that counts its transactions anew"
            )
        owner = None
        if installation.connections.owner_dsn is not None:
            owner = stack.enter_context(_as(installation.connections.owner_dsn, "database.owner_url"))
        epoch = Restoring(
            installation.database, sealing.ledger, installation.trail, sealing.keeper, sealing.trusted
        ).declare(last, owner)
    document = {"number": epoch.checkpoint.body.number, "resumes": epoch.resumes, "last": epoch.last}
    text = f"checkpoint {document['number']} declares the restore to checkpoint {epoch.resumes}"
    show(document, as_json=json, text=text)


def _keys(settings: Settings, path: Path | None) -> TrustedKeys:
    keys = trusted_keys(settings) if path is None else TrustedKeys(read_public_keys(path))
    if not len(keys):
        raise ConfigurationError("--public-key: is needed; `memvault audit public-key` prints it where the key is")
    return keys


@contextmanager
def _new_file(path: Path) -> Iterator[IO[bytes]]:
    """Lend a new file to write to. One that is there stays as it is, and one that was not finished is removed."""
    try:
        file = path.open("xb")
        try:
            with file:
                yield file
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    except FileExistsError:
        raise ConfigurationError(f"{path}: is there already, and is not written over") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be written ({error.strerror})") from None


def _refuse_dropped(ledger: Ledger, before: Mapping[UUID, Drop]) -> None:
    """Return when no old part of the trail was dropped since: what was read would be half of before and half of after.

    Raises:
        Unavailable: when one was.
    """
    if ledger.drops() != before:
        raise Unavailable("old parts of the trail were dropped while it was read; try again")


def _exported(settings: Settings, path: Path | None, *, needed: bool) -> Source:
    """Return the exported checkpoints; none where there is no place for them, or none yet in the default one.

    Raises:
        ConfigurationError: when the place that an option or a setting names is not there: what was cut off at the end
            is seen by nothing else.
    """
    named = path or settings.audit.checkpoint_folder
    path = named or checkpoint_folder(settings)
    if path is None or (named is None and not path.exists()):
        if needed:
            raise ConfigurationError("--checkpoints: is needed: the folder or file with the exported checkpoints")
        return Listed(())
    return CheckpointFiles(path)


def _verify(chain: Chain, sections: Iterator[Section], only: UUID | None, progress: _Bar) -> Report:
    progress.expect(sum(seals[-1].size for tenant_id, seals in chain.seals.items() if only in (None, tenant_id)))
    verifier = Verifier(chain, progress=progress)
    for section in sections:
        if only in (None, section.tenant_id):
            verifier.tenant(section.tenant_id, section.base, section.lines)
    return verifier.report(only=only)


def _told(report: Report, document: dict[str, Any]) -> str:
    checkpoints = document["checkpoints"]
    lines = [
        f"{report.rows} rows of {report.tenants} tenants under {checkpoints['count']} checkpoints",
        f"sealed: {report.sealed} rows are as an exported checkpoint sealed them",
        f"unsealed: {report.unsealed} rows that no exported checkpoint covers yet"
        + (f", {report.held} of them under one that the database alone has" if report.held else "")
        + (f", the oldest of {document['unsealed']['oldest_at']}" if report.oldest_unsealed else ""),
    ]
    lines += [
        f"unverified: {one.rows} rows of tenant {one.tenant_id}, from the first bad one on (position {one.position});"
        f" checkpoints sealed the positions below {one.sealed_to}"
        for one in report.unverified_tenants[:_MOST_TOLD]
    ]
    if not checkpoints["exported"]:
        lines.append("no exported checkpoints were given: a tail that was cut with its checkpoints cannot be seen")
    lines += [
        f"dropped by retention: the first {drop.rows} rows of tenant {drop.tenant_id}, declared in checkpoint"
        f" {drop.declared_in}, kept for {drop.keep_days} days"
        for drop in report.dropped
    ]
    lines += [
        f"restored: checkpoint {one.number} of {one.at.isoformat()} goes on from {one.resumes}; {one.void} checkpoints"
        f" and {one.lost_rows} rows are void"
        for one in report.chain.restored
    ]
    for problem in report.problems[:_MOST_TOLD]:
        where = [f"checkpoint {problem.checkpoint}"] if problem.checkpoint is not None else []
        where += [f"tenant {problem.tenant_id}"] if problem.tenant_id is not None else []
        where += [f"position {problem.position}"] if problem.position is not None else []
        where += [f"row {problem.row_id}"] if problem.row_id is not None else []
        lines.append(f"BAD {problem.kind.value}: {', '.join(where)}: {problem.detail}")
    lines.append("the trail is as it was sealed" if report.ok else f"{len(report.problems)} problems were found")
    return "\n".join(lines)


def _tenant(installation: wiring.Installation, name_or_id: str) -> UUID:
    """Return the id of a tenant; the service's own is known by its id."""
    return SYSTEM_TENANT if name_or_id == str(SYSTEM_TENANT) else installation.tenants.get(name_or_id).id


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise ConfigurationError("--tenant: an export knows tenants by id only") from None


@contextmanager
def _untold() -> Iterator[None]:
    """End with exit code 2 when a store goes away: 1 says that the trail was changed, which nobody has found."""
    try:
        yield
    except Unavailable as error:
        complain(f"{error.detail}: whether the trail is as it was sealed could not be told")
        raise SystemExit(2) from None


@contextmanager
def _as(dsn: str | None, setting: str) -> Iterator[Database]:
    if dsn is None:
        raise ConfigurationError(f"{setting}: is needed for this")
    database = Database(dsn, pool_size=2)
    try:
        yield database
    finally:
        database.close()


class _Bar:
    """A bar that counts rows; how many there will be is only known once the checkpoints are read."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("rows", total=None, speed=0.0)
        self._begun = clock.monotonic()
        self._rows = 0

    def expect(self, rows: int) -> None:
        """Say how many rows there are at least."""
        self._progress.update(self._task, total=max(1, rows))

    def __call__(self, rows: int) -> None:
        """Count rows that were read."""
        self._rows += rows
        speed = self._rows / max(1e-3, clock.monotonic() - self._begun)
        self._progress.update(self._task, advance=rows, speed=speed)


@contextmanager
def _progress(json: bool) -> Iterator[_Bar]:
    """Show on standard error how many rows were read and how fast."""
    columns = BarColumn(), TextColumn("{task.completed:,.0f} rows, {task.fields[speed]:,.0f}/s"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=json) as progress:
        yield _Bar(progress)
