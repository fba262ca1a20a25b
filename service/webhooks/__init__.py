"""Notifications of changes to memories: which addresses want them, what is due, and the one client that sends."""
