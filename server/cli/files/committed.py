"""Commands that look at commits say so while an agent works on what is not committed."""

from __future__ import annotations

from server.cli.aside import aside
from server.cli.connection import Connection
from server.cli.summary import SHORT


async def say_if_live(connection: Connection, session_id: str) -> None:
    """What a running turn has not committed is not looked at. Errors: TreadleError."""
    session = await connection.treadle.get_session(session_id)
    if session.active_turn_id:
        newest = f"the session's newest commit, {session.head_commit[:SHORT]}" if session.head_commit else "what the session began from"
        aside(f"a turn runs; this looks at {newest}. `files ls` and `files cat` show what its agent does")
