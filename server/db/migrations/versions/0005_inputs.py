"""What users say while a turn runs, and what agents ask them: inputs, requests, and what turns must know of them."""

from __future__ import annotations

from pathlib import Path

from server.db.migrations.script import run_script

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Add two tables and some columns; nothing is rewritten."""
    run_script(Path(__file__).with_suffix(".sql"))
