"""Migrations: alone, patient with locks, up and down on a filled database, and what may serve which schema."""
