"""The text of the server's configuration: private, durable, modest, and silent about content."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from service.storage.embedded.layout import PORT

ACCESS_RULES = "local all all scram-sha-256\n"

_SETTINGS: dict[str, str] = {
    # Who can reach it: nobody over the network; on this machine only through a private folder and with a password.
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "password_encryption": "scram-sha-256",
    "allow_alter_system": "off",
    "cluster_name": "memvault",
    # What an acknowledged write is worth.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # Used WAL files are deleted and not written over later: erased text must not lie in a file that waits for its
    # next turn. New files are filled with zeros first, which keeps each later commit to one cheap fdatasync.
    "wal_recycle": "off",
    "wal_init_zero": "on",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "256MB",
    "min_wal_size": "32MB",
    # A guest on a laptop.
    "max_connections": "60",
    "shared_buffers": "64MB",
    "work_mem": "8MB",
    "maintenance_work_mem": "64MB",
    "huge_pages": "off",
    "jit": "off",
    "io_method": "sync",
    "max_worker_processes": "4",
    "max_parallel_workers": "2",
    "max_logical_replication_workers": "0",
    # Nothing of the operating system's locale or time zone.
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
    "lc_monetary": "C",
    "lc_numeric": "C",
    "lc_time": "C",
    "default_text_search_config": "pg_catalog.simple",
    # What is logged never holds content. Statements, parameters and DETAIL are off; and since the text of an ERROR
    # itself can quote a value ('invalid input syntax …: "…"'), errors go to the client only: above WARNING and ERROR
    # stand LOG, FATAL and PANIC, which speak of the server.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_statement": "none",
    "log_min_duration_statement": "-1",
    "log_min_duration_sample": "-1",
    "log_transaction_sample_rate": "0",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_autovacuum_min_duration": "-1",
    "log_checkpoints": "off",
    "log_connections": "",
    "log_disconnections": "off",
    # One file for each hour of the day, emptied when its hour comes again.
    "logging_collector": "on",
    "log_filename": "postgresql-%H.log",
    "log_file_mode": "0600",
    "log_rotation_age": "60",
    "log_rotation_size": "0",
    "log_truncate_on_rotation": "on",
}


def configuration_text(*, sockets: Path, logs: Path, access_rules: Path, overrides: Mapping[str, str]) -> str:
    """Return the whole `postgresql.conf`; `overrides` come last and win. Raises ValueError for a bad name or value."""
    places = {"unix_socket_directories": _listed(sockets), "log_directory": str(logs), "hba_file": str(access_rules)}
    lines = [_line(name, value) for name, value in (_SETTINGS | places | dict(overrides)).items()]
    return "# Written anew at every start. Changes made here are lost.\n" + "".join(lines)


def _line(name: str, value: str) -> str:
    if not re.fullmatch(r"[a-z_][a-z0-9_.]*", name):
        raise ValueError(f"not the name of a Postgres setting: {name!r}")
    if any(character in value for character in "\n\r\0"):
        raise ValueError(f"the value of the Postgres setting {name} holds a line break")
    quoted = value.replace("\\", "\\\\").replace("'", "''")
    return f"{name} = '{quoted}'\n"


def _listed(folder: Path) -> str:
    """Quote a folder as one element of a list setting: a comma in its name must not split it."""
    doubled = str(folder).replace('"', '""')
    return f'"{doubled}"'
