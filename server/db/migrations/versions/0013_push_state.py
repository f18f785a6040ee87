"""What of each session's work its remote has: the SQL is in the file beside this one."""

from __future__ import annotations

from pathlib import Path

from server.db.migrations.script import run_script

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Add three columns."""
    run_script(Path(__file__).with_suffix(".sql"))
