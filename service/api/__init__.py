"""The HTTP face: Mem0's Platform dialect, key administration, health and metrics over the same actions."""
