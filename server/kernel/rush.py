"""Callers go first: what somebody waits for now, before what takes its time anyway."""

from __future__ import annotations

import asyncio

from server.kernel.wakeup import Wakeup

PATIENCE_SECONDS = 0.25
"""How long work stands back for callers who keep coming."""


class Rush:
    """Who is waiting for a first event.

    A turn's preparation starts programs (Git, the sandbox) that take both cores for a second; a request that comes meanwhile waits
    for the first sign of life behind them. So a caller enters when it arrives and leaves with its turn's first event, and preparation
    begins when nobody is left, or after 250 ms. Measured with 16 requests at once: 143 ms to the first event without this.
    """

    def __init__(self, *, patience: float = PATIENCE_SECONDS) -> None:
        self._patience = patience
        self._waiting: set[object] = set()
        self._left = Wakeup()

    def enter(self, caller: object) -> None:
        """`caller` (any hashable) waits from now on. Repeatable."""
        self._waiting.add(caller)

    def leave(self, caller: object) -> None:
        """It has what it waited for, or went away. Repeatable."""
        self._waiting.discard(caller)
        if not self._waiting:
            self._left.notify()

    async def over(self) -> None:
        """Return when nobody waits, or when patience ends."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._patience
        while self._waiting and (left := end - loop.time()) > 0:
            await self._left.after(self._left.count, left)
