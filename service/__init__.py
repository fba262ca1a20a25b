"""Memvault: a self-hosted, tenant-partitioned memory service on Mem0, Postgres and Qdrant."""
