"""The agent's way to a network, where its session allows any: a proxy for HTTP on loopback, behind which is the server's door."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from worker.relay import Relay

_OWN = "localhost,127.0.0.1,::1"
"""What the agent itself serves is not called through a proxy."""


@asynccontextmanager
async def opened_way_out(door: Path, *, away_seconds: float) -> AsyncIterator[Mapping[str, str]]:
    """The environment in which programs find the proxy."""
    relay = Relay(door, away_seconds, answers_last=True)
    server = await asyncio.start_server(relay.connected, "127.0.0.1", 0)
    try:
        yield _environment(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    finally:
        server.close()
        await relay.close()


def _environment(proxy: str) -> dict[str, str]:
    """In both spellings: curl reads `http_proxy` in small letters only, others the capital ones."""
    values = {"http_proxy": proxy, "https_proxy": proxy, "all_proxy": proxy, "no_proxy": _OWN}
    return values | {name.upper(): value for name, value in values.items()}
