"""Snapshots may expire: what is stored of them goes, and their rows stay to say so."""

from __future__ import annotations

from pathlib import Path

from server.db.migrations.script import run_script

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Widen a constraint, and add two indexes."""
    run_script(Path(__file__).with_suffix(".sql"))
