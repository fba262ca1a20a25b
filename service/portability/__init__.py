"""Import, export, backup and restore: how memory comes into an installation, leaves it, and survives it."""
