"""Where a forked session comes from."""

from __future__ import annotations

from server.cli.summary import SHORT
from treadle.session.v1.event_pb2 import SessionForked
from treadle_client import AsyncTreadle


async def forked_from(treadle: AsyncTreadle, session_id: str) -> SessionForked | None:
    """Its log begins with it. None for a session that is no fork. Errors: TreadleError."""
    async for event in treadle.list_events(session_id, page_size=1):
        return event.proto.session_forked if event.proto.HasField("session_forked") else None
    return None


def origin(fork: SessionForked) -> str:
    """In words: the other session, and the point of its history."""
    at = str(fork.parent_snapshot or fork.commit[:SHORT])
    return f"{fork.parent_session_id} {f'at {at}' if at else 'before its first change'}"
