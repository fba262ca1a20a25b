"""Holds the documentation in step with the code: tables, routes, commands, links and every example."""
