from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.egress import Internet, RecordingLedger, internet, settings_with
from support.postgres import open_directory

from server.egress.egress import open_egress
from server.kernel.ports.launcher import EgressDoor


@pytest.fixture(scope="module")
async def net(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Internet]:
    """For all tests of a file; each has names of its own."""
    with open_directory() as home:
        async with internet(tmp_path_factory.mktemp("net"), home / "gateway") as made:
            yield made


@dataclass
class Agent:
    """Speaks to a door as an agent's programs do."""

    door: Path
    ca: Path
    ledger: RecordingLedger = field(default_factory=RecordingLedger)

    async def connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(self.door)

    async def ask(self, request: str | bytes) -> str:
        """One request; all that comes back."""
        reader, writer = await self.connected()
        writer.write(request if isinstance(request, bytes) else request.encode())
        async with asyncio.timeout(20):
            answer = await reader.read()
        writer.close()
        return answer.decode(errors="replace")

    async def tunnel(self, target: str) -> tuple[str, asyncio.StreamReader, asyncio.StreamWriter]:
        """(the first line of the answer, and the tunnel)."""
        reader, writer = await self.connected()
        writer.write(f"CONNECT {target} HTTP/1.1\r\nhost: {target}\r\nx-own: secret-of-the-agent\r\n\r\n".encode())
        async with asyncio.timeout(20):
            head = await reader.readuntil(b"\r\n\r\n")
        return head.decode().split("\r\n")[0], reader, writer

    async def tls(self, host: str, port: int, *, name: str = "") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A tunnel to `host`, with TLS for `name` in it. Errors: OSError, also when the tunnel is refused."""
        first, reader, writer = await self.tunnel(f"{host}:{port}")
        if not first.startswith("HTTP/1.1 200 "):
            writer.close()
            raise ConnectionError(first)
        async with asyncio.timeout(20):
            await writer.start_tls(ssl.create_default_context(cafile=str(self.ca)), server_hostname=name or host)
        return reader, writer


class Doors:
    """Opens doors of one server."""

    def __init__(self, net: Internet, folder: Path) -> None:
        self._net = net
        self._folder = folder

    @asynccontextmanager
    async def open(self, *hosts: str, ceiling: str = "", name: str = "egress.sock", **changes: Any) -> AsyncIterator[Agent]:
        """For a session with these hosts, which the operator allows if no `ceiling` says otherwise."""
        agent = Agent(self._folder / name, self._net.ca)
        async with (
            open_egress(settings_with(self._net, self._folder, ceiling or ",".join(hosts), **changes)) as egress,
            egress.open(EgressDoor(agent.door, None), hosts=hosts, passed=0, ledger=agent.ledger),
        ):
            yield agent


@pytest.fixture
def doors(net: Internet) -> Any:
    with tempfile.TemporaryDirectory(prefix="treadle-") as folder:
        yield Doors(net, Path(folder))
