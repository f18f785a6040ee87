"""Logins at code hosts: how often their hosts may be asked; and archives of the old system that servers are about to write."""

from __future__ import annotations

from pathlib import Path

from server.db.migrations.script import run_script

revision = "0020"
down_revision = "0019"


def upgrade() -> None:
    """Make the tables."""
    run_script(Path(__file__).with_suffix(".sql"), locked=["legacy_archives"])
