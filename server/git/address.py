"""Public addresses only: a repository URL must not become a probe of the network that the server stands in."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from server.kernel.errors import RepositoryUnreachable

_UNICAST = IPv6Network("2000::/3")
"""All that is given out for global use (RFC 4291). Outside are site-local, IPv4-compatible, local NAT64 (64:ff9b:1::/48) and the rest,
of which Python's `is_global` takes some for public."""
_NAT64 = IPv6Network("64:ff9b::/96")
_DOCUMENTATION = IPv6Network("3fff::/20")


async def public_addresses(url: str, *, seconds: float) -> list[str]:
    """Every address of the URL's host. Errors: RepositoryUnreachable if one of them is not public, or none is known in time."""
    host = urlsplit(url).hostname or ""
    try:
        async with asyncio.timeout(seconds):
            found = await asyncio.get_running_loop().getaddrinfo(host, 443, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise RepositoryUnreachable(f"the name {host} was not resolved within {seconds:g} s") from None
    except OSError as error:
        raise RepositoryUnreachable(f"the name {host} cannot be resolved: {error.strerror or error}") from error
    addresses = sorted({str(entry[4][0]) for entry in found})
    if not all(is_public(address) for address in addresses):
        raise RepositoryUnreachable(f"{host} resolves to an address that is not public")
    return addresses


def is_public(address: str) -> bool:
    """Whether this is a globally routed unicast address, also when IPv4 is wrapped into IPv6 (mapped, 6to4, NAT64)."""
    parsed: IPv4Address | IPv6Address = ip_address(address.split("%", maxsplit=1)[0])
    if isinstance(parsed, IPv6Address):
        wrapped = parsed.ipv4_mapped or parsed.sixtofour or (IPv4Address(int(parsed) & 0xFFFFFFFF) if parsed in _NAT64 else None)
        if wrapped is None and (parsed not in _UNICAST or parsed in _DOCUMENTATION):
            return False
        parsed = wrapped or parsed
    return parsed.is_global and not parsed.is_multicast
