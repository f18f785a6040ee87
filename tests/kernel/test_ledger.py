"""What a turn's ledger does with connections that are cut."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from server.kernel.egress import EgressReason
from server.kernel.event import Fact
from server.kernel.ports.egress import Access
from server.kernel.supervisor import ledger as ledger_module
from server.kernel.supervisor.ledger import TurnLedger, kept_ledger


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

    async def step(self, _: str, *facts: Fact, key: str, passed: int) -> None:
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


@dataclass
class Drive:
    """One whose steps are taken at once."""

    told: list[list[tuple[Access, int]]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    turn: Any = field(default_factory=lambda: SimpleNamespace(id="t"))
    log: Any = field(default_factory=lambda: SimpleNamespace(epoch=3))
    ports: Any = field(
        default_factory=lambda: SimpleNamespace(codec=SimpleNamespace(network_access=lambda _, access, count=0: (access, count)))
    )

    async def step(self, _: str, *facts: Any, key: str, passed: int) -> None:
        assert passed == sum(access.bytes_in + access.bytes_out for access, _ in facts), "as the log tells of it"
        assert key not in self.keys, "another step by that key would be taken for the same one"
        self.keys.append(key)
        self.told.append([*facts])


class Turn:
    """An agent's connections, told to a ledger."""

    def __init__(self) -> None:
        self.drive: Any = Drive()
        self.ledger = TurnLedger(self.drive)
        self.number = 0

    async def refused(self, host: str) -> None:
        self.number += 1
        await self.ledger.ended(Access(self.number, host, 443, "CONNECT", reason=EgressReason.HOST_NOT_ALLOWED, ended=True))

    async def opened(self, host: str, rule: str, method: str = "CONNECT") -> Access:
        self.number += 1
        access = Access(self.number, host, 443, method, rule=rule)
        await self.ledger.opened(access)
        return access

    async def ended(self, access: Access, sent: int = 0) -> None:
        await self.ledger.ended(replace(access, ended=True, bytes_out=sent))

    @property
    def last(self) -> list[tuple[str, str, int, int]]:
        """What was told last: (host, rule, bytes out, count)."""
        return [(access.host, access.rule, access.bytes_out, count) for access, count in self.drive.told[-1]]


async def test_who_knocks_in_a_loop_hides_no_connection() -> None:
    turn = Turn()
    for number in range(1000):
        await turn.refused(f"x{number}.test")
    steps = len(turn.drive.told)
    assert steps == ledger_module.MAX_TOLD
    access = await turn.opened("upload.allowed.test", "*.allowed.test")
    assert turn.last == [("upload.allowed.test", "*.allowed.test", 0, 0)], "before it is dialled"
    await turn.ended(access, 10_000_000)
    assert turn.last == [("upload.allowed.test", "*.allowed.test", 10_000_000, 0)]
    assert len(turn.drive.told) == steps + 2


async def test_after_very_many_connections_the_first_to_each_host_or_by_each_rule_is_still_told_before_it_is_dialled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ledger_module, "MAX_TOLD", 3)
    monkeypatch.setattr(ledger_module, "MAX_HOSTS", 2)
    turn = Turn()
    for number in range(3):
        await turn.ended(await turn.opened(f"a{number}.test", "*.test"))
    assert len(turn.drive.told) == 6
    told = []
    for host, rule in [
        ("b.test", "*.test"),
        ("b.test", "*.test"),
        ("c.test", "*.test"),
        ("d.test", "*.test"),
        ("e.test", "*.test"),
        ("f.org", "f.org"),
    ]:
        before = len(turn.drive.told)
        await turn.ended(await turn.opened(host, rule), 100)
        told.append(len(turn.drive.told) - before)
    assert told == [2, 0, 2, 2, 0, 2]
    await turn.ledger.close()
    assert sorted(turn.last) == [("b.test", "*.test", 100, 1), ("e.test", "*.test", 100, 1)]


async def test_sums_of_connections_keep_at_least_the_rule_and_refusals_take_no_room_of_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "MAX_TOLD", 0)
    monkeypatch.setattr(ledger_module, "MAX_HOSTS", 0)
    monkeypatch.setattr(ledger_module, "MAX_SUMS", 1)
    turn = Turn()
    for number in range(3):
        await turn.refused(f"x{number}.test")
    for number in range(7):
        await turn.ended(await turn.opened(f"a{number}.test", "*.test"), 1)
    await turn.ledger.close()
    assert sorted(turn.last) == [
        ("", "", 0, 2),
        ("", "*.test", 2, 2),
        *((f"a{number}.test", "*.test", 1, 1) for number in range(1, 5)),
        ("x0.test", "", 0, 1),
    ], "a0 was the first by its rule, and told by itself"


async def test_sums_of_connections_are_told_when_they_are_large_or_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a server that is killed would take them along."""
    monkeypatch.setattr(ledger_module, "MAX_TOLD", 0)
    monkeypatch.setattr(ledger_module, "MAX_HOSTS", 1)
    turn = Turn()
    await turn.ended(await turn.opened("a.test", "*.test"))
    for _ in range(2):
        await turn.ended(await turn.opened("a.test", "*.test"), 10)
    steps = len(turn.drive.told)
    await turn.ended(await turn.opened("a.test", "*.test"), ledger_module.SUM_BYTES)
    assert (len(turn.drive.told), turn.last) == (steps + 1, [("a.test", "*.test", ledger_module.SUM_BYTES + 20, 3)])
    monkeypatch.setattr(ledger_module, "SUM_SECONDS", 0.0)
    await turn.ended(await turn.opened("a.test", "*.test"), 10)
    assert (len(turn.drive.told), turn.last) == (steps + 2, [("a.test", "*.test", 10, 1)])
    await turn.ledger.close()
    assert len(turn.drive.told) == steps + 2
