"""A TCP forwarder that stops a connection at a chosen byte: a fault at a named step, and not by a timer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager


class TcpGate:
    """Passes the first `limit` bytes that clients send, then nothing more (None: all). Of answers it passes all, or, per connection, as
    many bytes as the next of `answers` says, and then cuts it: after an even number in order (FIN), after an odd one not (RST)."""

    def __init__(self, target_port: int, limit: int | None, answers: Iterable[int] = ()) -> None:
        self.port = 0
        self.shut = asyncio.Event()
        """Set once the limit was reached."""
        self.cuts = 0
        """How many connections were cut at their last byte."""
        self._target_port = target_port
        self._left = limit
        self._answers = iter(answers)
        self._connections: set[asyncio.Task[None]] = set()
        if limit == 0:
            self.shut.set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target_port)
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._forward(reader, back))
                    both.create_task(self._answer(there, writer, next(self._answers, None)))
            finally:
                back.close()
        except* OSError:
            pass  # either side hung up, which is what the tests are about
        finally:
            writer.close()
            self._connections.discard(task)

    async def _forward(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            if self._left is not None:
                data, self._left = data[: self._left], max(0, self._left - len(data))
            target.write(data)
            await target.drain()
            if self._left == 0:
                self.shut.set()
                await asyncio.Event().wait()
        target.close()

    async def _answer(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, limit: int | None) -> None:
        left = limit
        while data := await source.read(65536):
            if left is not None:
                data, left = data[:left], left - len(data)
            target.write(data)
            await target.drain()
            if left is not None and left <= 0:
                self.cuts += 1
                if limit is not None and limit % 2:
                    target.transport.abort()
                raise ConnectionResetError
        target.close()

    def go_silent(self) -> None:
        """From now on nothing of what clients send is passed, and nobody is told."""
        self._left = 0

    async def hang_up(self) -> None:
        """End all connections."""
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)


@asynccontextmanager
async def tcp_gate(target_port: int, *, limit: int | None = None, answers: Iterable[int] = ()) -> AsyncIterator[TcpGate]:
    """A gate on a free port in front of `target_port`."""
    gate = TcpGate(target_port, limit, answers)
    server = await asyncio.start_server(gate.accept, "127.0.0.1", 0)
    gate.port = server.sockets[0].getsockname()[1]
    try:
        yield gate
    finally:
        server.close()
        await gate.hang_up()
        await server.wait_closed()
