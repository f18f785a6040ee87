"""When API keys end, and when they were last used."""

from __future__ import annotations

from pathlib import Path

from server.db.migrations.script import run_script

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add two columns."""
    run_script(Path(__file__).with_suffix(".sql"))
