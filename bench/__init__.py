"""Benchmarks: how fast Memvault is beside what it is made of, and how well it finds what was said (LoCoMo)."""
