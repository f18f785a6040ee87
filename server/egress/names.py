"""The addresses of a name, by DNS: in the loop, so that a name server that is slow on purpose holds up nobody else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

import aiodns

from gateway.addresses import Address, parse_address

_SECONDS = 10.0
_TRY_SECONDS = 3.0
_TRIES = 3


class NameUnknown(Exception):
    """The name has no address, or nobody says so in time."""


class Names:
    """Asks the machine's own name servers, or the given ones (`address:port`)."""

    def __init__(self, servers: Sequence[str]) -> None:
        self._dns = aiodns.DNSResolver(nameservers=servers or None, timeout=_TRY_SECONDS, tries=_TRIES)

    async def addresses(self, host: str) -> list[Address]:
        """All of them, the most promising first. Errors: NameUnknown."""
        try:
            async with asyncio.timeout(_SECONDS):
                # With the dot at its end the name is complete: no domain of this machine's network is tried behind it.
                found = await self._dns.getaddrinfo(f"{host}.", family=socket.AF_UNSPEC, type=socket.SOCK_STREAM)
        except (aiodns.error.DNSError, TimeoutError) as error:
            raise NameUnknown from error
        return [*dict.fromkeys(parse_address(_text(node.addr[0])) for node in found.nodes)]

    async def close(self) -> None:
        """Nobody waits for an answer any more."""
        await self._dns.close()


def _text(address: bytes | str) -> str:
    text = address.decode() if isinstance(address, bytes) else address
    return text.partition("%")[0]
