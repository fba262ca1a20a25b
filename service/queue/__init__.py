"""Deferred work: a task name, ids and a time, in the caller's transaction (procrastinate)."""
