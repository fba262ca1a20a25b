"""Handlers of queued and periodic work."""
