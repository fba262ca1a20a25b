"""The embedded PostgreSQL: a real server in one private folder, without a port, a container or a system user."""

from service.storage.embedded.bootstrap import Credentials, ensure_database
from service.storage.embedded.errors import EmbeddedPostgresError, NotRunning
from service.storage.embedded.server import Server
from service.storage.embedded.supervisor import EmbeddedPostgres
from service.storage.embedded.template import make_template

__all__ = [
    "Credentials",
    "EmbeddedPostgres",
    "EmbeddedPostgresError",
    "NotRunning",
    "Server",
    "ensure_database",
    "make_template",
]
