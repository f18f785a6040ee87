"""A TCP proxy that cuts connections after so many bytes of the answer: in the middle of whatever is being said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

Limit = Callable[[], int | None]


class CuttingProxy:
    """Asks `limit` at each new connection how many bytes of answer it passes before it cuts; None for never."""

    def __init__(self, target: str, limit: Limit) -> None:
        self.address = ""
        self.cuts = 0
        self.cut_answers: list[bytes] = []
        """What had come through each connection that was cut."""
        self._target = target
        self._limit = limit
        self._tasks: set[asyncio.Task[None]] = set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        host, _, port = self._target.rpartition(":")
        try:
            there, back = await asyncio.open_connection(host, int(port))
            asking = asyncio.create_task(_pass(reader, back))
            try:
                await self._answer(there, writer, self._limit())
            finally:
                asking.cancel()
                back.close()
        except (OSError, asyncio.CancelledError):
            pass  # one of the two hung up, or `hang_up` did; asyncio's server takes a cancelled handler for a defect
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _answer(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, left: int | None) -> None:
        target.transport.set_write_buffer_limits(0)
        passed = b""
        while data := await source.read(65536):
            target.write(data if left is None else data[:left])
            await target.drain()
            if left is not None:
                passed += data[:left]
                left -= len(data)
                if left <= 0:
                    self.cuts += 1
                    self.cut_answers.append(passed)
                    return

    async def hang_up(self) -> None:
        """Cut all connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _pass(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Until one of the two hangs up; then the other end is told."""
    try:
        with suppress(OSError):
            while data := await source.read(65536):
                target.write(data)
                await target.drain()
    finally:
        target.close()


@asynccontextmanager
async def cutting_proxy(target: str, limit: Limit) -> AsyncIterator[CuttingProxy]:
    """A proxy on a free port in front of `target` (`host:port`)."""
    proxy = CuttingProxy(target, limit)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        await proxy.hang_up()
        await server.wait_closed()
