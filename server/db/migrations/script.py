"""Runs a file of SQL statements within a migration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from alembic import op
from sqlalchemy.util import await_only

_LOCK_TABLES = """
DO $$
BEGIN
  FOR try IN 1..200 LOOP
    BEGIN
      SET LOCAL lock_timeout = '500ms';
      LOCK TABLE {tables} IN ACCESS EXCLUSIVE MODE;
      SET LOCAL lock_timeout = 0;
      RETURN;
    EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
      PERFORM pg_sleep(0.5);  -- without any: they went with the failed try
    END;
  END LOOP;
  RAISE lock_not_available USING MESSAGE = '{tables}: never free for a moment';
END $$;
"""


def run_script(path: Path, *, locked: Sequence[str] = ()) -> None:
    """All statements of the file, in the migration's transaction. Servers may be at work: the tables that it changes are `locked` first, at
    once or not at all. Who waits for such a lock makes all others wait behind it, so it is for half a second at a time."""
    if locked:
        _execute(_LOCK_TABLES.format(tables=", ".join(locked)))
    _execute(path.read_text())


def _execute(statements: str) -> None:
    """By the driver itself: SQLAlchemy prepares each statement, and a prepared statement is one statement."""
    driver = op.get_bind().connection.driver_connection
    if driver is None:
        raise RuntimeError("migrations need a live connection")
    await_only(driver.execute(statements))
