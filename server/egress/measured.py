"""Every connection of an agent's, counted."""

from __future__ import annotations

from server import telemetry
from server.kernel.ports.egress import Access, Ledger


class Measured:
    """A Ledger, before another one."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def opened(self, access: Access) -> None:
        """See Ledger."""
        await self._ledger.opened(access)

    async def ended(self, access: Access) -> None:
        """See Ledger."""
        telemetry.EGRESS_CONNECTIONS.labels("denied" if access.denied else "allowed", access.reason or "").inc()
        telemetry.EGRESS_BYTES.labels("in").inc(access.bytes_in)
        telemetry.EGRESS_BYTES.labels("out").inc(access.bytes_out)
        await self._ledger.ended(access)
