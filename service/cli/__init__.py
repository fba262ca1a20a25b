"""FACE command line: `memvault`, the installation's plane. Its credential is the database's, not a key."""

from service.cli.app import main as main
