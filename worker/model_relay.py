"""The agent's way to its model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from worker.provider import ModelAccess
from worker.relay import Relay


@asynccontextmanager
async def relayed(door: ModelAccess, socket: Path, *, away_seconds: float) -> AsyncIterator[ModelAccess]:
    """The same access at `socket`, which is always there, and goes with the slot. A door that is away for longer than `away_seconds` is a
    closed connection."""
    relay = Relay(door.socket, away_seconds)
    server = await asyncio.start_unix_server(relay.connected, socket)
    try:
        yield replace(door, socket=socket)
    finally:
        server.close()
        await relay.close()
