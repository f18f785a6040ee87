"""Postgres: sessions, turns, leases and event logs."""
