"""Tells each connection to Postgres to give up soon on a server that is gone, unless its URL knows better."""

from __future__ import annotations

from typing import Final

from psycopg.conninfo import conninfo_to_dict, make_conninfo

#: A host that vanishes says nothing more. Left to itself the kernel waits a quarter of an hour for an answer to what
#: was sent, and two hours where nothing was. A statement that takes long is not cut: its server answers the probes.
_GIVEN_UP: Final = {
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}


def bounded(url: str) -> str:
    """Return a connection string by which a server that is gone is given up within half a minute.

    What the URL says of that itself stays.

    Raises:
        psycopg.ProgrammingError: when Postgres does not understand the URL.
    """
    named = conninfo_to_dict(url)
    return make_conninfo(url, **{name: value for name, value in _GIVEN_UP.items() if name not in named})
