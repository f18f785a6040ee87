"""When each turn's agent had ended: the SQL is in the file beside this one."""

from __future__ import annotations

from pathlib import Path

from server.db.migrations.script import run_script

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Add a column."""
    run_script(Path(__file__).with_suffix(".sql"), locked=["turns"])
