"""What agents remember of a session, with its row-level security: the SQL is in the file beside this one."""

from __future__ import annotations

from pathlib import Path

from server.db.migrations.script import run_script

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the table."""
    run_script(Path(__file__).with_suffix(".sql"))
