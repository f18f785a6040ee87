"""Envoy, the second wall of the way out (gateway/envoy.yaml): it is told an address, looks at it by itself, and dials it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from gateway.addresses import Address, parse_address
from gateway.config import proxy_authorization
from server.kernel.egress import EgressReason

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_SECONDS = 15.0
_HEAD_BYTES = 8 * 1024
# Where it has the server's settings, it refuses nothing that is asked here.
_REFUSED = "the gateway refuses its address: TREADLE_EGRESS_NETWORKS is a setting of the gateway, too (with docker-compose: in .env)"
_DETAILS = {"Connection_refused": "the connection was refused", "connection_timeout": "it does not answer"}


class NotDialled(Exception):
    """There is no connection; the message tells why, without the host."""

    def __init__(self, reason: EgressReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Proxy:
    """Where Envoy listens: a unix socket, or `host:port`."""

    def __init__(self, place: str, credential: str) -> None:
        self._place = place
        self._credential = credential

    async def dial(self, address: Address, port: int) -> Streams:
        """A connection to this very address. Bounded. Errors: NotDialled."""
        try:
            async with asyncio.timeout(_SECONDS):
                streams = await self._connected()
                try:
                    await self._ask(streams, address, port)
                except BaseException:
                    streams[1].transport.abort()
                    raise
                return streams
        except TimeoutError:
            raise NotDialled(EgressReason.UNREACHABLE, "it does not answer") from None
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            raise NotDialled(EgressReason.UNREACHABLE, "this server's proxy (TREADLE_EGRESS_PROXY) cannot be reached") from error

    async def asks_for_credential(self) -> bool:
        """Whether it answers, and lets nobody through who shows none. Bounded."""
        try:
            async with asyncio.timeout(_SECONDS):
                reader, writer = await self._connected()
                try:
                    writer.write(b"CONNECT 192.0.2.1:443 HTTP/1.1\r\nhost: 192.0.2.1:443\r\n\r\n")
                    return (await reader.readuntil(b"\r\n")).split(b" ")[1:2] == [b"407"]
                finally:
                    writer.transport.abort()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            return False

    async def _connected(self) -> Streams:
        if not self._place.startswith("/"):
            host, _, port = self._place.rpartition(":")
            return await asyncio.open_connection(host.strip("[]"), int(port), limit=_HEAD_BYTES)
        # By its directory's descriptor: the path may be longer than a socket's address.
        socket = Path(self._place)
        directory = os.open(socket.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return await asyncio.open_unix_connection(f"/proc/self/fd/{directory}/{socket.name}", limit=_HEAD_BYTES)
        finally:
            os.close(directory)

    async def _ask(self, streams: Streams, address: Address, port: int) -> None:
        reader, writer = streams
        target = f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
        shown = proxy_authorization(self._credential)
        writer.write(f"CONNECT {target} HTTP/1.1\r\nhost: {target}\r\nproxy-authorization: {shown}\r\n\r\n".encode())
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = first.split(" ", 2)[1:2]
        if status == ["403"]:
            raise NotDialled(EgressReason.ADDRESS_FORBIDDEN, _REFUSED)
        if status == ["407"]:
            raise NotDialled(EgressReason.UNREACHABLE, "this server's proxy does not take TREADLE_EGRESS_PROXY_CREDENTIAL")
        if status != ["200"]:
            details = headers.get("x-details", "")
            said = next((words for detail, words in _DETAILS.items() if detail in details), "it cannot be reached")
            raise NotDialled(EgressReason.UNREACHABLE, said)
        dialled, _, _ = headers.get("x-address", "").rpartition(":")
        if parse_address(dialled) != address:
            raise NotDialled(EgressReason.ADDRESS_FORBIDDEN, "another address than the one that was looked at has been dialled")
