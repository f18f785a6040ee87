"""Pull requests of sessions' branches, and webhooks that tell of them: the SQL is in the file beside this one."""

from __future__ import annotations

from pathlib import Path

from server.db.migrations.script import run_script

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Add two columns and two tables."""
    run_script(Path(__file__).with_suffix(".sql"), locked=["sessions"])
