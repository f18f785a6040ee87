"""A turn's door to the network: a unix socket, as long as the agent's part of the turn lasts."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress

import structlog

from server.door_socket import bound
from server.egress.connection import Allowance, Connection, WayOut
from server.egress.proxy import Streams
from server.egress.request import MAX_HEAD_BYTES
from server.kernel.errors import LaunchFailed
from server.kernel.ports.egress import Ledger
from server.kernel.ports.launcher import EgressDoor
from server.pace import Pace

MAX_CONNECTIONS = 64
"""npm opens some fifteen at a time."""
_MAX_REFUSALS = 16
"""How many more are told that they are too many. Further ones wait until the kernel lets them in."""
MAX_DESCRIPTORS = 2 * MAX_CONNECTIONS + _MAX_REFUSALS + 1
"""What one turn may have open here: of each connection both ends."""
BURST = 300
PER_SECOND = 20.0
"""So many connections are taken as they come, then so many a second; the others wait, and cost nothing while they do. Each takes time of
the one loop that serves everybody."""
_AGAIN_SECONDS = 1.0
_CLOSE_SECONDS = 5.0
_FLUSH_SECONDS = 5.0

log = structlog.get_logger()


@asynccontextmanager
async def listening(door: EgressDoor, way: WayOut | None, allowance: Allowance, ledger: Ledger) -> AsyncIterator[None]:
    """Answer at the door. Afterwards nobody can connect, every connection is cut, and the ledger has heard of it. Errors: LaunchFailed."""
    connections = _Connections(way, allowance, ledger)
    accepting: asyncio.Task[None] | None = None
    listener: socket.socket | None = None
    try:
        with ExitStack() as path:
            try:
                listener = path.enter_context(bound(door.socket, door.owner))
            except OSError as error:
                raise LaunchFailed(f"the worker's door to the network cannot be opened: {error.strerror}") from error
            accepting = asyncio.create_task(connections.accept(listener))
            yield
    finally:
        if accepting is not None:
            accepting.cancel()
            await asyncio.wait({accepting})
            if not accepting.cancelled():
                log.error("egress.accepting_broke", exc_info=accepting.exception())
        if listener is not None:
            listener.close()
        await connections.close()


class _Connections:
    def __init__(self, way: WayOut | None, allowance: Allowance, ledger: Ledger) -> None:
        self._way = way
        self._allowance = allowance
        self._ledger = ledger
        self._tasks: set[asyncio.Task[None]] = set()
        self._left = asyncio.Event()
        self._number = 0

    async def accept(self, listener: socket.socket) -> None:
        """Those of the agent's, one after the other, as long as there is room for more."""
        pace = Pace(BURST, PER_SECOND, asyncio.get_running_loop().time)
        while True:
            await self._room()
            await asyncio.sleep(pace.seconds())
            try:
                agent = await _accepted(listener)
            except OSError as error:
                # Out of descriptors: others will give some back.
                log.warning("egress.not_accepted", error=error.strerror)
                await asyncio.sleep(_AGAIN_SECONDS)
                continue
            pace.take()
            self._begin(agent)

    async def _room(self) -> None:
        while len(self._tasks) >= MAX_CONNECTIONS + _MAX_REFUSALS:
            self._left.clear()
            await self._left.wait()

    def _begin(self, agent: Streams) -> None:
        self._number += 1
        full = len(self._tasks) >= MAX_CONNECTIONS
        task = asyncio.create_task(self._serve(agent, self._number, full=full))
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        # A task that is cancelled before it has begun closes nothing.
        task.add_done_callback(lambda _: agent[1].transport.abort())

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._left.set()

    async def _serve(self, agent: Streams, number: int, *, full: bool) -> None:
        await Connection(self._way, self._allowance, self._ledger, agent, number, full=full).serve()
        # What was written is handed over, but nobody waits for long for an agent that does not read.
        agent[1].close()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_FLUSH_SECONDS):
                await agent[1].wait_closed()

    async def close(self) -> None:
        """Cut all. Its own limit, since this must be done after a cancel too; the ledger's store may be away."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=_CLOSE_SECONDS)
            for task in left:
                task.cancel()
            if left:
                log.warning("egress.ends_not_recorded", connections=len(left))


async def _accepted(listener: socket.socket) -> Streams:
    """The next connection. Errors: OSError."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            await _readable(listener)
            continue
        # Nothing is awaited in between, so a cancel loses none.
        reader = asyncio.StreamReader(limit=MAX_HEAD_BYTES)
        transport, protocol = await loop.connect_accepted_socket(lambda: asyncio.StreamReaderProtocol(reader), connection)  # noqa: B023
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def _readable(listener: socket.socket) -> None:
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(listener, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(listener)
