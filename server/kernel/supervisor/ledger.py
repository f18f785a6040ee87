"""A turn's ledger: every connection that its agent asked for, told as events; the last of very many as sums.

Refusals and connections have purses of their own: an agent that knocks in a loop, to use up what is told one by one, hides none that came
about.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from server.kernel.egress import EgressReason
from server.kernel.errors import Fenced
from server.kernel.event import Fact
from server.kernel.finish import Finishing
from server.kernel.ports.egress import Access

if TYPE_CHECKING:
    from server.kernel.supervisor.drive import Drive

MAX_TOLD = 500
"""So many refusals, and so many connections, are told one by one. An agent that knocks in a loop must not fill the log."""
MAX_HOSTS = 200
"""After that the first connection to each host still is, for so many hosts; and then the first by each rule."""
MAX_SUMS = 100
"""Of different refusals; what is left is summed up by reason. There are four times as many of different connections; what is left of those
is summed up by rule and reason."""
SUM_SECONDS = 60.0
SUM_BYTES = 8 * 1024 * 1024
"""Sums of connections are told after so long or so much, and not only when the door closes: a server that is killed tells none."""

CLOSE_SECONDS = 5.0

log = structlog.get_logger()

Kind = tuple[str, int, str, str, EgressReason | None]


class _Sums:
    """Counted, by kind as long as there are few, and then by what is `coarse` of it."""

    def __init__(self, most: int, coarse: Callable[[Access], Access]) -> None:
        self._most = most
        self._coarse = coarse
        self._sums: dict[Kind, tuple[Access, int]] = {}
        self.bytes = 0

    def __bool__(self) -> bool:
        return bool(self._sums)

    @property
    def connections(self) -> int:
        """How many have been counted."""
        return sum(count for _, count in self._sums.values())

    def add(self, access: Access) -> None:
        """One more."""
        if _kind(access) not in self._sums and len(self._sums) >= self._most:
            access = self._coarse(access)
        kind = _kind(access)
        total, count = self._sums.get(kind, (replace(access, bytes_in=0, bytes_out=0, seconds=0.0), 0))
        total = replace(
            total,
            bytes_in=total.bytes_in + access.bytes_in,
            bytes_out=total.bytes_out + access.bytes_out,
            seconds=total.seconds + access.seconds,
        )
        self._sums[kind] = (total, count + 1)
        self.bytes += access.bytes_in + access.bytes_out

    def taken(self) -> list[tuple[Access, int]]:
        """All, which begin anew."""
        taken = [*self._sums.values()]
        self._sums.clear()
        self.bytes = 0
        return taken


def _kind(access: Access) -> Kind:
    return (access.host, access.port, access.method, access.rule, access.reason)


def _by_reason(access: Access) -> Access:
    return replace(access, host="", port=0, method="", rule="", message="and others")


def _by_rule(access: Access) -> Access:
    return replace(access, host="", port=0, method="", message="and others")


@asynccontextmanager
async def kept_ledger(drive: Drive) -> AsyncIterator[TurnLedger]:
    """For one opening of the turn's door; what was only counted is told when it has closed."""
    ledger = TurnLedger(drive)
    try:
        yield ledger
    finally:
        await ledger.close()


class TurnLedger:
    """See Ledger."""

    def __init__(self, drive: Drive) -> None:
        self._drive = drive
        self._opened = 0
        self._refused = 0
        self._told: set[int] = set()
        """Those that are open and told one by one."""
        self._counted: set[int] = set()
        """Those that are open and are not."""
        self._hosts: set[tuple[str, int, str]] = set()
        self._rules: set[str] = set()
        self._refusals = _Sums(MAX_SUMS, _by_reason)
        self._connections = _Sums(4 * MAX_SUMS, _by_rule)
        self._sums = 0
        self._summed = asyncio.get_running_loop().time()
        self._finishing = Finishing()

    async def opened(self, access: Access) -> None:
        """See Ledger."""
        if not self._worth_telling(access):
            self._counted.add(access.number)
            return
        self._told.add(access.number)
        await self._tell("opened", access.number, self._fact(access))

    def _worth_telling(self, access: Access) -> bool:
        """Whether it is told by itself that it opens: of each host, or at least each rule, it is known before anything is dialled."""
        if self._opened < MAX_TOLD:
            self._opened += 1
            return True
        host = (access.host, access.port, access.rule)
        if host in self._hosts:
            return False
        if len(self._hosts) < MAX_HOSTS:
            self._hosts.add(host)
            return True
        if access.rule in self._rules:
            return False
        self._rules.add(access.rule)
        return True

    async def ended(self, access: Access) -> None:
        """See Ledger."""
        if access.number in self._told:
            self._told.discard(access.number)
        elif access.number in self._counted:
            self._counted.discard(access.number)
            self._connections.add(access)
            await self._tell_sums_when_due()
            return
        elif self._refused < MAX_TOLD:
            self._refused += 1
        else:
            self._refusals.add(access)
            return
        try:
            await self._tell("ended", access.number, self._fact(access), passed=access.bytes_in + access.bytes_out)
        except Fenced as error:
            # Another server has the turn: this one cannot write for it any more.
            log.warning("egress.end_not_recorded", error=error.message)

    async def close(self) -> None:
        """Tell what was counted. Bounded: the store may be away."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._finishing.finished()
                await self._tell_sums(self._connections, self._refusals)
        except TimeoutError:
            log.warning("egress.ledger_not_closed", connections=self._connections.connections + self._refusals.connections)

    async def _tell_sums_when_due(self) -> None:
        if asyncio.get_running_loop().time() - self._summed >= SUM_SECONDS or self._connections.bytes >= SUM_BYTES:
            await self._tell_sums(self._connections)

    async def _tell_sums(self, *sums: _Sums) -> None:
        passed = sum(each.bytes for each in sums)
        taken = [each for kinds in sums for each in kinds.taken()]
        if not taken:
            return
        self._sums += 1
        self._summed = asyncio.get_running_loop().time()
        try:
            await self._tell("sums", self._sums, *(self._fact(total, count) for total, count in taken), passed=passed)
        except Fenced as error:
            log.warning("egress.sums_not_recorded", error=error.message, connections=sum(count for _, count in taken))

    def _fact(self, access: Access, count: int = 0) -> Fact:
        item_id = f"{self._drive.turn.id}/network/{self._drive.log.epoch}.{access.number}"
        return self._drive.ports.codec.network_access(item_id, access, count=count)

    async def _tell(self, what: str, number: int, *facts: Fact, passed: int = 0) -> None:
        key = f"network.{self._drive.log.epoch}.{number}.{what}"
        # A step that was begun is taken: were it cut with its connection, nobody would know whether it is written.
        await self._finishing.run(self._drive.step("network", *facts, key=key, passed=passed))
