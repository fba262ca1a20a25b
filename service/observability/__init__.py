"""Logs and metrics that hold no content."""
