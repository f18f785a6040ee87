"""Inputs that wait in a session's queue, counted and told."""

from __future__ import annotations

from server.cli.connection import Connection
from treadle.session.v1.event_pb2 import INPUT_DELIVERY_INTERRUPT


async def waiting_inputs(connection: Connection, session_id: str) -> int:
    """How many stay where they are when a turn is stopped; those that stop one begin the next. Errors: TreadleError."""
    return len([each async for each in connection.treadle.list_inputs(session_id) if each.delivery != INPUT_DELIVERY_INTERRUPT])


def in_words(waiting: int) -> str:
    """For a person."""
    return "1 input waits" if waiting == 1 else f"{waiting} inputs wait"
