"""Postgres, the record: engines, transactions, tables, and the keyring that its content is encrypted with."""
