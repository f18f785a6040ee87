"""Archives of the old system: what is about to be written."""

from __future__ import annotations

from pathlib import Path

from server.db.migrations.script import run_script

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Add columns."""
    run_script(Path(__file__).with_suffix(".sql"), locked=["legacy_archives"])
