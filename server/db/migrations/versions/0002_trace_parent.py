"""Turns remember the trace that asked for them, so that a server that takes one up goes on in the same trace."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """A constant default: no row is rewritten, and a server of the version before goes on."""
    op.execute("ALTER TABLE turns ADD COLUMN trace_parent text NOT NULL DEFAULT ''")
