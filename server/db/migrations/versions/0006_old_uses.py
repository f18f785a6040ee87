"""What models were used is removed when it is old."""

from __future__ import annotations

from pathlib import Path

from server.db.migrations.script import run_script

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add a grant, and the index that finds old rows."""
    run_script(Path(__file__).with_suffix(".sql"))
