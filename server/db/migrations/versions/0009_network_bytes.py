"""How much of its way out a turn has used."""

from __future__ import annotations

from pathlib import Path

from server.db.migrations.script import run_script

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add a column."""
    run_script(Path(__file__).with_suffix(".sql"))
