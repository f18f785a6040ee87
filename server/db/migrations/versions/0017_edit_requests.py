"""Edits that are asked for again: the SQL is in the file beside this one."""

from __future__ import annotations

from pathlib import Path

from server.db.migrations.script import run_script

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    """Add a table."""
    run_script(Path(__file__).with_suffix(".sql"))
