"""Runs a file of SQL statements within a migration."""

from __future__ import annotations

from pathlib import Path

from alembic import op
from sqlalchemy.util import await_only


def run_script(path: Path) -> None:
    """All statements of the file, in the migration's transaction. By the driver itself: SQLAlchemy prepares each statement, and a
    prepared statement is one statement."""
    driver = op.get_bind().connection.driver_connection
    if driver is None:
        raise RuntimeError("migrations need a live connection")
    await_only(driver.execute(path.read_text()))
