"""A turn's ledger: every connection that its agent asked for, told as events; the last of very many as sums."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
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
"""An agent that knocks in a loop must not fill the log."""
MAX_SUMS = 100
"""Of different hosts, ports, methods and reasons; what is left is summed up by reason."""

CLOSE_SECONDS = 5.0

log = structlog.get_logger()

Kind = tuple[str, int, str, str, EgressReason | None]


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
        self._sums: dict[Kind, tuple[Access, int]] = {}
        self._finishing = Finishing()

    async def opened(self, access: Access) -> None:
        """See Ledger."""
        if access.number <= MAX_TOLD:
            await self._tell("opened", access.number, self._fact(access))

    async def ended(self, access: Access) -> None:
        """See Ledger."""
        if access.number > MAX_TOLD:
            self._add(access)
            return
        try:
            await self._tell("ended", access.number, self._fact(access))
        except Fenced as error:
            # Another server has the turn: this one cannot write for it any more.
            log.warning("egress.end_not_recorded", error=error.message)

    async def close(self) -> None:
        """Tell what was counted. Bounded: the store may be away."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._finishing.finished()
                await self._tell_sums()
        except TimeoutError:
            log.warning("egress.ledger_not_closed", connections=sum(count for _, count in self._sums.values()))

    async def _tell_sums(self) -> None:
        facts = [self._fact(total, count) for total, count in self._sums.values()]
        if not facts:
            return
        try:
            await self._tell("sums", 0, *facts)
        except Fenced as error:
            log.warning("egress.sums_not_recorded", error=error.message, connections=sum(count for _, count in self._sums.values()))

    def _add(self, access: Access) -> None:
        kind: Kind = (access.host, access.port, access.method, access.rule, access.reason)
        if kind not in self._sums and len(self._sums) >= MAX_SUMS:
            kind = ("", 0, "", "", access.reason)
            access = replace(access, host="", port=0, method="", rule="", message="and others")
        total, count = self._sums.get(kind, (replace(access, bytes_in=0, bytes_out=0, seconds=0.0), 0))
        total = replace(
            total,
            bytes_in=total.bytes_in + access.bytes_in,
            bytes_out=total.bytes_out + access.bytes_out,
            seconds=total.seconds + access.seconds,
        )
        self._sums[kind] = (total, count + 1)

    def _fact(self, access: Access, count: int = 0) -> Fact:
        item_id = f"{self._drive.turn.id}/network/{self._drive.log.epoch}.{access.number}"
        return self._drive.ports.codec.network_access(item_id, access, count=count)

    async def _tell(self, what: str, number: int, *facts: Fact) -> None:
        key = f"network.{self._drive.log.epoch}.{number}.{what}"
        # A step that was begun is taken: were it cut with its connection, nobody would know whether it is written.
        await self._finishing.run(self._drive.step("network", *facts, key=key))
