"""Turns that wait for a place."""

from __future__ import annotations

from pathlib import Path

from server.db.migrations.script import run_script

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add some columns, without rewriting anything, and the index that finds those that wait."""
    run_script(Path(__file__).with_suffix(".sql"))
