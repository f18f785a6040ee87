"""TLS between a server and a carrier, each of which knows the other's certificate."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl

_KEEPALIVE = ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))


def context(side: int, *, certificate: str, key: str, other: str) -> ssl.SSLContext:
    """For `ssl.PROTOCOL_TLS_CLIENT` or `_SERVER`. Whoever uses it still has to see that it is that very certificate, and not one that it
    has signed. Blocks."""
    made = ssl.SSLContext(side)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_verify_locations(cadata=other)
    # The module reads its own certificate from files only; this one is in no directory.
    with os.fdopen(os.memfd_create("certificate"), "w") as file:
        file.write(key + certificate)
        file.flush()
        made.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
    return made


def keep_alive(writer: asyncio.StreamWriter) -> None:
    """Hear of it when the other machine, or the way there, is gone, also where nothing is said. Errors: OSError."""
    connection: socket.socket = writer.get_extra_info("socket")
    for option, value in _KEEPALIVE:
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
