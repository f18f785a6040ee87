"""Memory that requests may take up together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from server.kernel.wakeup import Wakeup


class Room:
    """So many bytes, first come, first served as far as they fit. One request always fits alone."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._used = 0
        self._changes = Wakeup()

    @asynccontextmanager
    async def taken(self, size: int) -> AsyncIterator[None]:
        """Wait until it fits, and have it. Wait with a limit."""
        while self._used and self._used + size > self._size:
            await self._changes.after(self._changes.count)
        self._used += size
        try:
            yield
        finally:
            self._used -= size
            self._changes.notify()
