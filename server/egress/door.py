"""A turn's door to the network: a unix socket, as long as the agent's part of the turn lasts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress

import structlog

from server.door_socket import BACKLOG, bound
from server.egress.connection import Allowance, Connection, WayOut
from server.egress.request import MAX_HEAD_BYTES
from server.kernel.errors import LaunchFailed
from server.kernel.ports.egress import Ledger
from server.kernel.ports.launcher import EgressDoor

MAX_CONNECTIONS = 64
"""npm opens some fifteen at a time."""
_MAX_REFUSALS = 16
"""How many more are told that they are too many; further ones are closed."""
_CLOSE_SECONDS = 5.0
_FLUSH_SECONDS = 5.0

log = structlog.get_logger()


@asynccontextmanager
async def listening(door: EgressDoor, way: WayOut | None, allowance: Allowance, ledger: Ledger) -> AsyncIterator[None]:
    """Answer at the door. Afterwards nobody can connect, every connection is cut, and the ledger has heard of it. Errors: LaunchFailed."""
    connections = _Connections(way, allowance, ledger)
    accepting: asyncio.Server | None = None
    try:
        with ExitStack() as path:
            try:
                listener = path.enter_context(bound(door.socket, door.owner))
                accepting = await asyncio.start_unix_server(connections.connected, sock=listener, limit=MAX_HEAD_BYTES, backlog=BACKLOG)
            except OSError as error:
                raise LaunchFailed(f"the worker's door to the network cannot be opened: {error.strerror}") from error
            yield
    finally:
        if accepting is not None:
            accepting.close()
            # Connections that were accepted a moment ago are seen in the next rounds of the loop.
            for _ in range(3):
                await asyncio.sleep(0)
        await connections.close()


class _Connections:
    def __init__(self, way: WayOut | None, allowance: Allowance, ledger: Ledger) -> None:
        self._way = way
        self._allowance = allowance
        self._ledger = ledger
        self._tasks: set[asyncio.Task[None]] = set()
        self._number = 0
        self._closed = False

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection of the agent's."""
        if self._closed or len(self._tasks) >= MAX_CONNECTIONS + _MAX_REFUSALS:
            writer.transport.abort()
            return
        self._number += 1
        full = len(self._tasks) >= MAX_CONNECTIONS
        task = asyncio.create_task(self._serve((reader, writer), self._number, full=full))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # A task that is cancelled before it has begun closes nothing.
        task.add_done_callback(lambda _: writer.transport.abort())

    async def _serve(self, agent: tuple[asyncio.StreamReader, asyncio.StreamWriter], number: int, *, full: bool) -> None:
        await Connection(self._way, self._allowance, self._ledger, agent, number, full=full).serve()
        # What was written is handed over, but nobody waits for long for an agent that does not read.
        agent[1].close()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_FLUSH_SECONDS):
                await agent[1].wait_closed()

    async def close(self) -> None:
        """Cut all. Its own limit, since this must be done after a cancel too; the ledger's store may be away."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=_CLOSE_SECONDS)
            for task in left:
                task.cancel()
            if left:
                log.warning("egress.ends_not_recorded", connections=len(left))
