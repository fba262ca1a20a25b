"""Examines an installation part by part: what is found, where, and what to do next, in plain words."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

import httpx
import psycopg
from sqlalchemy import text

from service import clock, wiring
from service.auth.signing_keys import SigningKeys
from service.cli.installation import open_migrated
from service.cli.urls import in_url
from service.engine import refuse_environment
from service.errors import ConfigurationError, MemvaultError
from service.queue import tasks as queue
from service.settings import Settings
from service.storage.conninfo import bounded

_TIMEOUT: Final = 3.0
#: Seconds after which what waits is a sign that nobody works.
_WAITED: Final = 600.0
#: Seconds by which the clocks of this machine and of Postgres may differ: tokens and expiry dates go by them.
_SKEW: Final = 5.0
_LEAST_BYTES: Final = 256 * 1024 * 1024
_LEAST_PART: Final = 0.05


@dataclass(frozen=True, slots=True)
class Finding:
    """One part as it was found: `ok`, `off`, `warning` or `failed`; why, what to do next, and where that is."""

    name: str
    state: str
    reason: str | None = None
    remedy: str | None = None
    where: str | None = None


def examine(settings: Settings, *, offline: bool) -> Iterator[Finding]:
    """Yield what is found. With `offline` nothing but the stores and this machine is asked."""
    yield from _folder(settings)
    try:
        refuse_environment(os.environ, wiring.llm_settings(settings.llm))
        yield Finding("environment", "ok")
    except MemvaultError as error:
        yield Finding("environment", "failed", error.detail, "unset it for the service, then start it again")
    service = _service(settings)
    runs = service.state in ("ok", "failed") and service.name == "service"
    reached = _reach(settings)
    if reached is not None:
        yield reached
    if reached is None or reached.state == "ok":
        with ExitStack() as stack:
            yield from _record(settings, stack, runs=runs)
    yield _index(settings, runs=runs)
    yield _llm(settings, offline=offline)
    yield _issuer(settings, offline=offline)
    yield service


def _folder(settings: Settings) -> Iterator[Finding]:
    try:
        yield from _folder_inside(settings)
    except OSError as error:
        reason = f"{error.filename or settings.data_dir} cannot be looked at ({error.strerror})"
        yield Finding(
            "data folder", "failed", reason, "name the right one, or run this as the service's user", "data_dir"
        )


def _folder_inside(settings: Settings) -> Iterator[Finding]:
    folder, keys, where = settings.data_dir, settings.keys_folder, "data_dir"
    if not folder.exists():
        yield Finding("data folder", "off", f"{folder} is not there", where=where)
        return
    if not folder.is_dir():
        reason = f"{folder} is a file"
        yield Finding("data folder", "failed", reason, "set data_dir to a folder", where)
        return
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        reason = f"{folder} cannot be read and written by the user {os.geteuid()}"
        yield Finding(
            "data folder", "failed", reason, f"chown -R it to the service's user, or chmod u+rwx {folder}", where
        )
        return
    if keys.exists() and keys.stat().st_mode & 0o077:
        reason = f"{keys} can be read by others"
        yield Finding("data folder", "failed", reason, f"chmod 700 {keys}", "keyring.folder")
        return
    yield Finding("data folder", "ok", str(folder.resolve()))
    disk = shutil.disk_usage(folder)
    free = f"{disk.free >> 20} MB of {disk.total >> 20} MB are free where {folder} is"
    if disk.free < _LEAST_BYTES or disk.free < _LEAST_PART * disk.total:
        remedy = "enlarge the volume, or remove what does not belong there; never files of postgres/ by hand"
        yield Finding("disk", "failed", free, remedy, where)
    else:
        yield Finding("disk", "ok", free)


def _reach(settings: Settings) -> Finding | None:
    """Tell why the database of `database.url` cannot be entered; None where it is the embedded one."""
    if settings.database.url is None:
        return None
    where = "database.url"
    try:
        with psycopg.connect(bounded(settings.database.url.get_secret_value()), connect_timeout=5) as connection:
            row = connection.execute("SELECT clock_timestamp()").fetchone()
    except psycopg.Error as error:
        reason, remedy = _told(str(error))
        return Finding("database", "failed", reason, remedy, where)
    return _skew(row[0]) if row else None


def _told(message: str) -> tuple[str, str]:
    """Return what the words of Postgres' client mean. They may name the user and the host, and are not repeated."""
    known = (
        ("password authentication failed", "Postgres refuses the user or the password",
         "set the password in database.url to the role's, or the role's with ALTER ROLE … PASSWORD"),
        ("no password supplied", "Postgres asks for a password and database.url has none", "add it to database.url"),
        ("does not exist", "the role or the database that database.url names does not exist",
         "correct the name, or make it (CREATE ROLE, CREATE DATABASE), then run `memvault migrate`"),
        ("no pg_hba.conf entry", "Postgres lets nobody in from this machine with that user, database and encryption",
         "add a line to pg_hba.conf (or the rules of your provider), or add sslmode=require to database.url"),
        ("certificate", "the certificate of Postgres is not trusted",
         "set sslrootcert in database.url to its authority"),
        ("too many", "Postgres has no connection left",
         "raise max_connections, or lower database.pool_size; count it for every process"),
        ("starting up", "Postgres is starting or recovering", "wait a moment and look again"),
        ("resolve", "the host name of database.url is not known", "correct the name, or the name service"),
        ("translate host", "the host name of database.url is not known", "correct the name, or the name service"),
        ("refused", "nothing listens at the host and port of database.url",
         "start Postgres there, or correct host and port; look at the firewall and the network policy"),
        ("timeout", "Postgres does not answer in time",
         "look at the firewall and the network policy between here and there"),
        ("No such file", "there is no socket of Postgres at the path of database.url",
         "start Postgres, or correct the path"),
    )  # fmt: skip
    for words, reason, remedy in known:
        if words in message:
            return reason, remedy
    return "Postgres cannot be entered", "check host, port, database, user and password of database.url with psql"


def _skew(theirs: datetime) -> Finding:
    seconds = abs((clock.now() - theirs).total_seconds())
    if seconds > _SKEW:
        reason = f"the clocks of this machine and of Postgres differ by {seconds:.0f} seconds"
        return Finding("clock", "failed", reason, "let both follow one time server (chrony, systemd-timesyncd)")
    return Finding("database", "ok")


def _record(settings: Settings, stack: ExitStack, *, runs: bool) -> Iterator[Finding]:
    try:
        installation = open_migrated(settings, stack)
        tenants = installation.tenants.list()
    except MemvaultError as error:
        yield _why_not_opened(error)
        return
    yield Finding("record", "ok", f"{len(tenants)} tenants, {wiring.count_memories(installation)} memories")
    yield Finding("keyring", "ok")
    with installation.database.tenant_blind() as connection:
        waiting, since = wiring.outbox_standing(installation, connection)
        jobs = queue.standing(connection)
        skew = _skew(connection.execute(text("SELECT clock_timestamp()")).scalar_one())
    if skew.state != "ok":
        yield skew
    told = f"{waiting} changes wait for the index" if waiting else None
    if since is not None and _age(since) > _WAITED:
        remedy = "see to it that the index answers; the process that serves brings it up to date by itself"
        yield Finding("outbox", "failed" if runs else "warning", f"{told}, for {_age(since):.0f} seconds", remedy)
    else:
        yield Finding("outbox", "ok", told)
    old = max((_age(one.oldest) for one in jobs if one.state == "due" and one.oldest is not None), default=0.0)
    if old > _WAITED:
        remedy = "start `memvault worker`, or set queue.in_process for `memvault serve`"
        yield Finding("queue", "failed" if runs else "warning", f"a job has been due for {old:.0f} seconds", remedy)
    else:
        yield Finding("queue", "ok", f"{sum(one.count for one in jobs)} jobs")
    yield from _trail(settings, installation, runs=runs)


def _why_not_opened(error: MemvaultError) -> Finding:
    """Return under which part an installation is ill that cannot be opened."""
    detail = error.detail
    if detail.startswith("data_dir "):
        remedy = "name the right folder with --data-dir or MEMVAULT_DATA_DIR; `memvault serve` makes a new installation"
        return Finding("record", "failed", detail, remedy, "data_dir")
    if "keyring" in detail.split(":")[0] or "wrapping key" in detail:
        remedy = (
            "name the right data_dir, keyring.folder or keyring.url and keyring.wrapping_key; else restore its backup"
        )
        return Finding("keyring", "failed", detail, remedy, "keyring")
    if "schema" in detail:
        newer = "newer" in detail
        remedy = "install a newer Memvault" if newer else "run `memvault migrate` with database.owner_url"
        return Finding("schema", "failed", detail, remedy, "database.url")
    if "database.url: the role" in detail:
        remedy = "use the role of database.app_role (default memvault_app): neither superuser, owner nor BYPASSRLS"
        return Finding("role", "failed", detail, remedy, "database.url")
    return Finding("record", "failed", detail, "look at the log of Postgres, and try again")


def _trail(settings: Settings, installation: wiring.Installation, *, runs: bool) -> Iterator[Finding]:
    where = "audit.signing_key"
    if not settings.embedded and settings.audit.signing_key is None:
        yield Finding(
            "audit trail", "off", "no audit.signing_key here: the process that runs the worker seals it", where=where
        )
        return
    try:
        sealing = wiring.seal_trail(installation)
    except ConfigurationError as error:
        remedy = "name a PEM file with an Ed25519 key that the service's user alone can read (mode 0600)"
        yield Finding("audit trail", "failed", error.detail, remedy, where)
        return
    try:
        sealing.keeper.compare_heads()
    except MemvaultError as error:
        remedy = "after a restore run `memvault audit restored`; else take it for an incident: docs/audit-integrity.md"
        yield Finding("audit trail", "failed", error.detail, remedy)
        return
    with installation.database.tenant_blind() as connection:
        late = sealing.ledger.undelivered(connection)
        oldest = sealing.ledger.unsealed(connection)
    behind = {sink: _age(since) for sink, since in late.items() if since is not None and _age(since) > _WAITED}
    if behind:
        told = ", ".join(f"{sink} lacks checkpoints of {seconds:.0f} seconds" for sink, seconds in behind.items())
        remedy = "see to it that the place can be written to; `memvault audit checkpoint` delivers at once"
        yield Finding("audit trail", "failed", told, remedy, "audit.checkpoint_folder, audit.s3")
        return
    if settings.audit.retention_days is not None and installation.connections.maintenance_dsn is None:
        told = "audit.retention_days is set, and there is no role that may drop what is older"
        remedy = "set database.maintenance_url (docs/audit-integrity.md), or run `memvault audit drop-old` where it is"
        yield Finding("audit trail", "warning", told, remedy, "audit.retention_days, database.maintenance_url")
        return
    if oldest is not None and not runs:
        yield Finding("audit trail", "ok", "some rows are not sealed yet; the next start seals them")
        return
    yield Finding("audit trail", "ok")


def _index(settings: Settings, *, runs: bool) -> Finding:
    if settings.index.url is None:
        owner = None
        # A folder that cannot be looked at was told of by now.
        with suppress(OSError):
            owner = wiring.index_owner(settings.data_dir)
        if owner is not None and not runs:
            reason = f"the index folder is in use by process {owner}, and no service answers"
            return Finding(
                "index", "failed", reason, f"see what process {owner} is; end it, then start again", "data_dir"
            )
        return Finding("index", "ok", "Qdrant Edge in the data folder")
    reason, remedy = wiring.ask_index_server(settings)
    if remedy is not None:
        return Finding("index", "failed", reason, remedy, "index.url")
    return Finding("index", "ok", reason)


def _llm(settings: Settings, *, offline: bool) -> Finding:
    chosen = wiring.llm_settings(settings.llm)
    if chosen is None:
        told = f"no LLM is configured (llm.provider); infer=true: {settings.fallback.value}"
        return Finding("extraction", "off", told)
    if offline or chosen.base_url is None:
        return Finding("extraction", "ok", f"provider {chosen.provider}; that it answers was not tried")
    where = "llm.base_url"
    key = settings.llm.api_key.get_secret_value() if settings.llm.api_key else chosen.config.get("api_key")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        answer = httpx.get(f"{chosen.base_url.rstrip('/')}/models", headers=headers, timeout=_TIMEOUT, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        reason = f"the LLM of provider {chosen.provider} cannot be reached ({type(error).__name__})"
        remedy = "start it, correct llm.base_url, or open the way to it; adds wait in the queue meanwhile"
        return Finding("extraction", "failed", reason, remedy, where)
    if answer.status_code in (401, 403):
        reason = f"the LLM of provider {chosen.provider} refuses the key ({answer.status_code})"
        return Finding("extraction", "failed", reason, "set llm.api_key to a key that it takes", "llm.api_key")
    return Finding("extraction", "ok", f"provider {chosen.provider} answers")


def _issuer(settings: Settings, *, offline: bool) -> Finding:
    oidc = settings.auth.oidc
    if oidc.issuer is None:
        return Finding("tokens", "off", "auth.oidc.issuer is not set: API keys only")
    if offline:
        return Finding("tokens", "ok", "that the issuer answers was not tried")
    where = "auth.oidc.issuer"
    try:
        keys = SigningKeys(oidc)
    except ConfigurationError as error:
        return Finding("tokens", "failed", error.detail, "name a PEM file with certificates", "auth.oidc.ca_file")
    keys.start()
    until = clock.monotonic() + 3 * oidc.timeout
    while (found := keys.state())[0] == "starting" and clock.monotonic() < until:
        time.sleep(0.05)
    state, reason = found
    if state == "ok":
        return Finding("tokens", "ok", "the issuer's signing keys are there")
    remedy = (
        "correct the issuer's address, or open the way to it; access tokens are refused meanwhile, API keys are not"
    )
    return Finding("tokens", "failed", reason or "the issuer does not answer", remedy, where)


def _service(settings: Settings) -> Finding:
    host, port = settings.server.host, settings.server.port
    url = f"http://{in_url(host)}:{port}"
    credentials = settings.data_dir / "credentials.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        url = str(json.loads(credentials.read_text(encoding="utf-8"))["url"])
    try:
        answer = httpx.get(f"{url}/readyz", timeout=_TIMEOUT, trust_env=False)
        parts = dict(answer.json()["parts"])
    except httpx.TransportError:
        return _port(host, port, url)
    except (ValueError, KeyError, TypeError, httpx.HTTPError, httpx.InvalidURL):
        reason = f"something that is no Memvault answers at {url}"
        remedy = "end that program, or give Memvault another port (server.port)"
        return Finding("port", "failed", reason, remedy, "server.port")
    if answer.status_code == httpx.codes.OK:
        return Finding("service", "ok", f"{url}/readyz answers 200")
    ill = "; ".join(f"{name}: {one.get('reason')}" for name, one in parts.items() if one.get("status") == "failed")
    reason = f"{url}/readyz answers {answer.status_code}" + (f" ({ill})" if ill else "")
    return Finding("service", "failed", reason, "mend what it names; see the findings above")


def _port(host: str, port: int, url: str) -> Finding:
    """Nothing answers: tell whether the port could be had."""
    told = f"nothing answers at {url}; start it with `memvault serve`"
    asked = urlsplit(url).port
    if port == 0 or asked != port:
        return Finding("service", "off", told)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((host, port))
        except OSError as error:
            reason = f"port {port} of {host} cannot be had ({error.strerror}) and no Memvault answers there"
            remedy = "end the program that has it, or choose another port (server.port)"
            return Finding("port", "failed", reason, remedy, "server.port")
    return Finding("service", "off", told)


def _age(moment: datetime) -> float:
    return max(0.0, (clock.now() - moment).total_seconds())
