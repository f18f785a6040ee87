"""What a running gateway needs now and then: a renewed certificate is taken up, and its log does not fill the disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog

from gateway.config import Gateway
from server.embedded.gateway_home import GatewayHome
from server.refusal import SettingsUnfit

INTERVAL_SECONDS = 5.0

log = structlog.get_logger()

Seen = tuple[tuple[int, int, int], ...]


@asynccontextmanager
async def looked_after(home: GatewayHome, gateway: Gateway, say: Callable[[str], None]) -> AsyncIterator[None]:
    """For the time of the context. `say` gets a sentence for each change of the certificate."""
    task = asyncio.create_task(_look_after(home, gateway, say), name="upkeep of the gateway")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _look_after(home: GatewayHome, gateway: Gateway, say: Callable[[str], None]) -> None:
    # What Envoy was started with may have changed since: the first look takes up whatever is there.
    seen: Seen = ()
    while True:
        try:
            await asyncio.to_thread(home.trim)
        except OSError as error:
            log.warning("gateway.log_not_trimmed", error=str(error))
        try:
            found = await asyncio.to_thread(_files, gateway)
            if found != seen:
                first, seen = not seen, found
                await _renew(home, gateway, say, quiet=first)
        except OSError as error:
            log.warning("gateway.upkeep_failed", error=str(error))
        await asyncio.sleep(INTERVAL_SECONDS)


def _files(gateway: Gateway) -> Seen:
    """What tells one certificate from the next without reading it; empty without any."""
    paths = [path for path in (gateway.tls_certificate, gateway.tls_key) if path is not None]
    return tuple((status.st_ino, status.st_mtime_ns, status.st_size) for status in (path.stat() for path in paths))


async def _renew(home: GatewayHome, gateway: Gateway, say: Callable[[str], None], *, quiet: bool) -> None:
    try:
        await asyncio.to_thread(home.certify, gateway)
    except SettingsUnfit as error:
        log.warning("gateway.certificate_unfit", error=str(error))
        say(f"the gateway keeps the certificate that it has: {error}")
        return
    if not quiet:
        log.info("gateway.certificate_renewed")
        say("the gateway has a renewed certificate")
