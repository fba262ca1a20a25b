"""The embedded PostgreSQL: a real server in one private folder, without a port, a container or a system user."""

from service.storage.embedded.bootstrap import Credentials, ensure_database
from service.storage.embedded.errors import EmbeddedPostgresError, NotRunning
from service.storage.embedded.server import Server
from service.storage.embedded.supervisor import EmbeddedPostgres
from service.storage.embedded.template import make_template
from service.storage.embedded.watching import Watch

__all__ = [
    "Credentials",
    "EmbeddedPostgres",
    "EmbeddedPostgresError",
    "NotRunning",
    "Server",
    "Watch",
    "ensure_database",
    "make_template",
]
