"""Tenants, users, keys, sessions, turns and event logs, with their row-level security: the SQL is in the file beside this one."""

from __future__ import annotations

from pathlib import Path

from server.db.migrations.script import run_script

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make everything; the roles exist already (`server.db.roles`)."""
    run_script(Path(__file__).with_suffix(".sql"))
