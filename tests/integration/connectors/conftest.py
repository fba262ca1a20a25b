"""Fixtures of the connectors' calls: those of the HTTP face."""

from tests.integration.api.conftest import app, client, make_client

__all__ = ["app", "client", "make_client"]
