"""What users have to get into code hosts, sealed, with its row-level security: the SQL is in the file beside this one."""

from __future__ import annotations

from pathlib import Path

from server.db.migrations.script import run_script

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Make the table."""
    run_script(Path(__file__).with_suffix(".sql"))
