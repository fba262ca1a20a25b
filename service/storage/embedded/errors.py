"""What can go wrong with the embedded Postgres; each message says what, where, and what to do next."""

from __future__ import annotations


class EmbeddedPostgresError(Exception):
    """The embedded Postgres cannot be used. The message is one line, fit for a terminal, without any content."""


class NotRunning(EmbeddedPostgresError):
    """No server of this installation is running."""


class ProgramsMissing(EmbeddedPostgresError):
    """The PostgreSQL programs are not installed."""


class FolderRefused(EmbeddedPostgresError):
    """A folder cannot be used as it is: wrong owner, not enterable, or not ours to change."""


class CannotDropRoot(EmbeddedPostgresError):
    """Running as root, but the system does not let us become another user."""


class InitialisationFailed(EmbeddedPostgresError):
    """A new cluster could not be made. Nothing half-made stays in its place."""


class WrongVersion(EmbeddedPostgresError):
    """The cluster belongs to another major version of PostgreSQL."""


class StartFailed(EmbeddedPostgresError):
    """The server ended instead of starting, or a running one cannot be reached."""


class StartTimeout(EmbeddedPostgresError):
    """The server did not become ready in time. It is left running: ending a crash recovery would only restart it."""


class StopFailed(EmbeddedPostgresError):
    """The server did not end."""


class InUseElsewhere(EmbeddedPostgresError):
    """Processes that cannot be seen from here (another container, for instance) hold the cluster."""
