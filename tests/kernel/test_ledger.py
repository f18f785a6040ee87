"""What a turn's ledger does with connections that are cut."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from server.kernel.event import Fact
from server.kernel.ports.egress import Access
from server.kernel.supervisor.ledger import kept_ledger


class SlowDrive:
    """A drive whose steps take until `go`."""

    def __init__(self) -> None:
        self.turn = SimpleNamespace(id="t")
        self.log = SimpleNamespace(epoch=3)
        self.ports = SimpleNamespace(
            codec=SimpleNamespace(network_access=lambda item, access, count=0: Fact("network_access", item.encode()))
        )
        self.go = asyncio.Event()
        self.begun = asyncio.Event()
        self.steps: list[str] = []

    async def step(self, _: str, *facts: Fact, key: str) -> None:
        self.begun.set()
        await self.go.wait()
        self.steps.append(key)


async def test_a_step_that_has_begun_is_taken_to_its_end_though_its_connection_is_cut() -> None:
    """Else nobody would know whether it was written, and the turn's next step would be refused."""
    drive: Any = SlowDrive()
    async with kept_ledger(drive) as ledger:
        connection = asyncio.create_task(ledger.opened(Access(1, "a.test", 443, "CONNECT", rule="a.test")))
        await drive.begun.wait()
        connection.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connection
        drive.go.set()
    assert drive.steps == ["network.3.1.opened"]
