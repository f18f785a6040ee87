"""Archives of the old system: what was imported, and what was written."""

from __future__ import annotations

from pathlib import Path

from server.db.migrations.script import run_script

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Add a table."""
    run_script(Path(__file__).with_suffix(".sql"))
