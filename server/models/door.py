"""A turn's door: a unix socket where the gateway answers, as long as the agent's part of the turn lasts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress

from aiohttp import web

from server.door_socket import BACKLOG, bound
from server.kernel.errors import LaunchFailed
from server.kernel.ports.launcher import ModelDoor
from server.models.exchange import Exchange

_MAX_CONNECTIONS = 64
"""More than any agent needs; the server's descriptors are not for one turn."""
_CLOSE_SECONDS = 5.0
_IDLE_SECONDS = 600.0
_LINGER_SECONDS = 2.0
_LAST_WORDS_SECONDS = 0.05

_unheard = logging.getLogger(f"{__name__}.http")
"""What aiohttp finds wrong with bytes that are no HTTP: agents could fill the server's log with it. What breaks in the exchange is logged
there."""
_unheard.addHandler(logging.NullHandler())
_unheard.propagate = False


@asynccontextmanager
async def listening(door: ModelDoor, exchange: Exchange) -> AsyncIterator[None]:
    """Answer at the door. Afterwards nobody can connect, every connection is closed, every request has ended and is settled.
    Errors: LaunchFailed."""
    server = web.Server(
        exchange.handle,
        handler_cancellation=True,
        access_log=None,
        logger=_unheard,
        keepalive_timeout=_IDLE_SECONDS,
        # For what comes behind a request that was refused before it was read.
        lingering_time=_LINGER_SECONDS,
        # A compressed request would be unpacked before anybody has looked at its size.
        auto_decompress=False,
        max_line_size=8190,
        max_headers=64,
        max_field_size=8190,
    )

    accepting: asyncio.Server | None = None

    def protocol() -> asyncio.BaseProtocol:
        closed = accepting is not None and not accepting.is_serving()
        return _Full() if closed or len(server.connections) >= _MAX_CONNECTIONS else server()

    try:
        with ExitStack() as path:
            try:
                listener = path.enter_context(bound(door.socket, door.owner))
                accepting = await asyncio.get_running_loop().create_unix_server(protocol, sock=listener, backlog=BACKLOG)
            except OSError as error:
                raise LaunchFailed(f"the worker's door to models cannot be opened: {error.strerror}") from error
            yield
    finally:
        # Its own limit, since this must be done after a cancel too: what is under way is cut, what was used is settled.
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await _closed(accepting, server, exchange)


async def _closed(accepting: asyncio.Server | None, server: web.Server, exchange: Exchange) -> None:
    if accepting is not None:
        accepting.close()
        # A connection that was accepted a moment ago gets its protocol in the next rounds of the loop, and is seen only then.
        for _ in range(3):
            await asyncio.sleep(0)
    await exchange.close()
    # By now they only write their last words. (0 would mean: without a limit.)
    await server.shutdown(timeout=_LAST_WORDS_SECONDS)


class _Full(asyncio.Protocol):
    """A connection that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close it."""
        transport.close()
