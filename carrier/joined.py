"""A connection of this machine and one to the other side, which are one from now on.

TLS, as asyncio has it, ends both ways at once. So what is said there goes in pieces, each behind its length; one of no length says that
nothing more comes, while the other way goes on.
"""

from __future__ import annotations

import asyncio
import select
import struct
from contextlib import suppress

_LENGTH = struct.Struct(">H")
_PIECE_BYTES = 0xFFFF
_FLUSH_SECONDS = 5.0

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def joined(here: Streams, there: Streams) -> None:
    """Pass bytes both ways, `there` in pieces, until neither has more to say, or one is gone; then both are closed."""
    try:
        async with asyncio.TaskGroup() as ways:
            ways.create_task(_handed_over(here, there[1]))
            ways.create_task(_taken_over(there[0], here[1]))
    except* (OSError, EOFError):
        # That is how one learns it; the other learns it by what follows.
        pass
    finally:
        for _, writer in (here, there):
            writer.close()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_FLUSH_SECONDS):
                for _, writer in (here, there):
                    await writer.wait_closed()
        for _, writer in (here, there):
            cut(writer)


def cut(writer: asyncio.StreamWriter) -> None:
    """End a connection at once, if it has not ended."""
    # In Python 3.11 a TLS connection that was closed after it had ended has forgotten what there was to end.
    with suppress(AttributeError):
        writer.transport.abort()


def is_gone(here: asyncio.StreamWriter) -> bool:
    """Whether the other end of a unix socket is closed; one that has only ended what it says may still hear an answer."""
    if here.is_closing():
        return True
    poll = select.poll()
    poll.register(here.get_extra_info("socket").fileno(), 0)
    return bool(poll.poll(0))


async def _handed_over(here: Streams, there: asyncio.StreamWriter) -> None:
    reader, writer = here
    while piece := await reader.read(_PIECE_BYTES):
        there.writelines((_LENGTH.pack(len(piece)), piece))
        await there.drain()
    if is_gone(writer):
        raise EOFError
    there.write(_LENGTH.pack(0))
    await there.drain()


async def _taken_over(there: asyncio.StreamReader, here: asyncio.StreamWriter) -> None:
    while length := _LENGTH.unpack(await there.readexactly(_LENGTH.size))[0]:
        here.write(await there.readexactly(length))
        await here.drain()
    here.write_eof()
