"""Snapshots of every kind, transcripts of past turns, and objects whose session was deleted."""

from __future__ import annotations

from pathlib import Path

from server.db.migrations.script import run_script

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add three tables, and fill two of them with what there is."""
    run_script(Path(__file__).with_suffix(".sql"))
