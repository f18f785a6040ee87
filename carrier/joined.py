"""Two connections that are one from now on."""

from __future__ import annotations

import asyncio
from contextlib import suppress

_PIECE_BYTES = 64 * 1024
_FLUSH_SECONDS = 5.0

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def joined(one: Streams, other: Streams) -> None:
    """Pass bytes both ways until one side has nothing more to say; then both are closed."""
    ways = {asyncio.create_task(_pump(one[0], other[1])), asyncio.create_task(_pump(other[0], one[1]))}
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.wait(ways)
        for _, writer in (one, other):
            writer.close()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_FLUSH_SECONDS):
                for _, writer in (one, other):
                    await writer.wait_closed()
        for _, writer in (one, other):
            cut(writer)


def cut(writer: asyncio.StreamWriter) -> None:
    """End a connection at once, if it has not ended."""
    # In Python 3.11 a TLS connection that was closed after it had ended has forgotten what there was to end.
    with suppress(AttributeError):
        writer.transport.abort()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await source.read(_PIECE_BYTES):
            sink.write(piece)
            await sink.drain()
