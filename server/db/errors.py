"""Why a database cannot be used at all. These stop the server's start; nothing of it reaches a caller."""

from __future__ import annotations

from server.kernel.errors import KernelError
from server.refusal import StartRefused


class DatabaseUnfit(StartRefused):
    """The database must be set up differently before Treadle may run on it."""


class SchemaBehind(DatabaseUnfit):
    """The tables are not those that this version needs."""

    def __init__(self, found: str | None, needed: str) -> None:
        super().__init__(
            f"the database is at schema {found or 'none'}, this server needs {needed}; "
            "set TREADLE_DATABASE_OWNER_URL so that it can migrate, or run the version of Treadle that fits"
        )
        self.older = found is not None and found < needed
        """There are tables, and who prepares databases can bring them up to date."""


class LoginRefused(DatabaseUnfit):
    """The database is there, and lets nobody in like this."""

    def __init__(self, setting: str, said: Exception) -> None:
        super().__init__(f"{setting}: the database lets nobody in ({said}); are user, password and database those that were made there?")


class RoleTooPowerful(DatabaseUnfit):
    """A role could see past row-level security."""

    def __init__(self, role: str, reason: str) -> None:
        super().__init__(f"refusing to start: the database role {role!r} {reason}, so row-level security would not hold")


def with_cause(error: KernelError) -> str:
    """For an operator: what was behind it, too; where that has no words (a connection that timed out, or was cut while it was made), its
    kind."""
    cause = error.__cause__
    return error.message if cause is None else f"{error.message} ({str(cause) or type(cause).__name__})"
