"""The worker's proxy, which only passes bytes to the server's door: here a listener of our own stands for that."""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from worker.way_out import opened_way_out

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
def door() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="treadle-") as folder:
        yield Path(folder) / "egress.sock"


@pytest.fixture
async def port(door: Path) -> AsyncIterator[int]:
    async with opened_way_out(door, away_seconds=60) as environment:
        yield int(environment["https_proxy"].rpartition(":")[2])


async def test_who_has_said_all_at_once_still_hears_the_answer(door: Path, port: int) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"heard " + await reader.read())
        writer.close()

    server = await asyncio.start_unix_server(answer, door)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"all of it")
    writer.write_eof()
    async with asyncio.timeout(20):
        assert await reader.read() == b"heard all of it"
    writer.close()
    server.close()


async def test_in_front_of_a_door_where_too_many_wait_a_connection_is_held(door: Path, port: int) -> None:
    """The kernel turns it away at once then, and its agent's program would take that for the network's fault."""
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.setblocking(False)
        listener.bind(str(door))
        listener.listen(0)
        waiting = _filled(door)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"hello")
        await writer.drain()
        # It is none of those that are taken first, so it has been turned away, and has come back.
        for before in waiting:
            (await loop.sock_accept(listener))[0].close()
            before.close()
        async with asyncio.timeout(20):
            taken, _ = await loop.sock_accept(listener)
            with taken:
                assert await loop.sock_recv(taken, 100) == b"hello"
                await loop.sock_sendall(taken, b"heard")
            assert await reader.read() == b"heard"
        writer.close()


def _filled(door: Path) -> list[socket.socket]:
    """As many connections as wait in front of it."""
    waiting: list[socket.socket] = []
    with suppress(BlockingIOError):
        while True:
            waiting.append(socket.socket(socket.AF_UNIX))
            waiting[-1].setblocking(False)
            waiting[-1].connect(str(door))
    waiting.pop().close()
    return waiting
