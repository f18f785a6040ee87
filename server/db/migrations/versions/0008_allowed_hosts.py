"""Where the workers of a session may connect to."""

from __future__ import annotations

from pathlib import Path

from server.db.migrations.script import run_script

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add a column."""
    run_script(Path(__file__).with_suffix(".sql"))
