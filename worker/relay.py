"""An agent's connections to a socket of the server, over restarts of the server.

The server's doors are sockets that are away while the server is. Agents' own clients give up after some seconds and blame the network;
here a connection is held until there is a door again, unless its agent leaves before. Bytes pass as they are; what breaks off breaks off
for the agent, too, whose client then asks again.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from pathlib import Path

_PAUSE_SECONDS = 0.1
_PIECE_BYTES = 64 * 1024
_FLUSH_SECONDS = 5.0

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Relay:
    """Joins each connection of an agent to the server's socket `door`. One that is away for longer than `away_seconds` is a closed
    connection. `answers_last`: an agent that has said all it had to say may still hear the answer; else it is taken to have left."""

    def __init__(self, door: Path, away_seconds: float, *, answers_last: bool = False) -> None:
        self._door = door
        self._away_seconds = away_seconds
        self._answers_last = answers_last
        self._connections: set[asyncio.Task[None]] = set()

    def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection of the agent's."""
        task = asyncio.create_task(self._serve((reader, writer)))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        # A task that is cancelled before it has begun closes nothing.
        task.add_done_callback(lambda _: writer.transport.abort())

    async def close(self) -> None:
        """End all connections."""
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)

    async def _serve(self, agent: Streams) -> None:
        try:
            first = await agent[0].read(_PIECE_BYTES)
            if not first:
                return
            # Not before it says something: a connection that was made in advance may outlive several doors.
            said = [first]
            door = await self._opened_while_there(agent[0], said)
            if door is None:
                return
            try:
                door[1].writelines(said)
                del said, first
                await door[1].drain()
                await self._joined(agent, door)
            finally:
                door[1].transport.abort()
        except (OSError, TimeoutError):
            # The agent sees it by its closed connection.
            pass
        finally:
            await _closed(agent[1])

    async def _opened_while_there(self, agent: asyncio.StreamReader, said: list[bytes]) -> Streams | None:
        """The door; None when the agent was gone first: nobody would hear the answer, and it would cost. What it goes on saying
        meanwhile is added to `said`. Errors: TimeoutError."""
        opening = asyncio.create_task(self._opened())
        listening = asyncio.create_task(_collect(agent, said))
        door = None
        try:
            async with asyncio.timeout(self._away_seconds):
                await asyncio.wait({opening, listening}, return_when=asyncio.FIRST_COMPLETED)
                if listening.done() and self._answers_last:
                    # It said all at once. Where the door is there, that takes a moment.
                    await asyncio.wait({opening}, timeout=_PAUSE_SECONDS)
            if opening.done() and (self._answers_last or not listening.done()):
                door = opening.result()
            return door
        finally:
            listening.cancel()
            opening.cancel()
            await asyncio.wait({opening, listening})
            if door is None and not opening.cancelled() and opening.exception() is None:
                opening.result()[1].transport.abort()

    async def _opened(self) -> Streams:
        """A connection to the door, once there is one."""
        while True:
            door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                door.setblocking(False)
                door.connect(str(self._door))
            except (FileNotFoundError, ConnectionRefusedError, BlockingIOError):
                # Away, or too many wait in front of it; what asyncio makes of the latter looks connected, and is not.
                door.close()
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            except BaseException:
                door.close()
                raise
            return await asyncio.open_unix_connection(sock=door)

    async def _joined(self, agent: Streams, door: Streams) -> None:
        """Both ways, until the door, or the agent, has nothing more to say."""
        asking, answering = asyncio.create_task(_pump(agent[0], door[1])), asyncio.create_task(_pump(door[0], agent[1]))
        try:
            await asyncio.wait({asking, answering}, return_when=asyncio.FIRST_COMPLETED)
            if self._answers_last and asking.done() and asking.result():
                # The server knows for how long to wait.
                door[1].write_eof()
                await asyncio.wait({answering})
        finally:
            asking.cancel()
            answering.cancel()
            await asyncio.wait({asking, answering})


async def _collect(source: asyncio.StreamReader, pieces: list[bytes]) -> None:
    """To its end."""
    with suppress(OSError):
        while piece := await source.read(_PIECE_BYTES):
            pieces.append(piece)


async def _closed(writer: asyncio.StreamWriter) -> None:
    """What was written is handed over, but nobody waits for long for an agent that does not read."""
    writer.close()
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(_FLUSH_SECONDS):
            await writer.wait_closed()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> bool:
    """Whether all was passed on that the source had to say."""
    with suppress(OSError):
        while piece := await source.read(_PIECE_BYTES):
            sink.write(piece)
            await sink.drain()
        return True
    return False
