"""Objects of sessions that were deleted go from the object store."""

from __future__ import annotations

import structlog

from server.kernel.errors import KernelError
from server.kernel.ports.history_store import HistoryStore
from server.kernel.ports.object_store import ObjectStore
from server.kernel.wakeup import Wakeup

PREFIXES_PER_PAGE = 100
AGAIN_SECONDS = 3600.0
"""An upload that was under way when its session was deleted has ended by then."""

log = structlog.get_logger()


class Disposal:
    """What is doomed stands in the database, so neither a crash nor a store that is away makes it be forgotten."""

    def __init__(self, history: HistoryStore, objects: ObjectStore, *, retry_seconds: float) -> None:
        self._history = history
        self._objects = objects
        self._retry_seconds = retry_seconds
        self._calls = Wakeup()

    def call(self) -> None:
        """Something was deleted."""
        self._calls.notify()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            seen = self._calls.count
            try:
                await self._round()
            except KernelError as error:
                log.warning("disposal.round_failed", error=error.message)
            await self._calls.after(seen, self._retry_seconds)

    async def _round(self) -> None:
        last = ""
        while page := await self._history.doomed(limit=PREFIXES_PER_PAGE, after=last):
            for prefix in page:
                await self._dispose(prefix)
            last = page[-1]

    async def _dispose(self, prefix: str) -> None:
        """One that fails stops no other."""
        try:
            keys = [key async for key in self._objects.list(prefix)]
            for key in keys:
                await self._objects.delete(key)
            await self._history.gone(prefix, again_seconds=AGAIN_SECONDS)
        except KernelError as error:
            log.warning("objects.still_there", prefix=prefix, error=error.message)
        else:
            if keys:
                log.info("objects.deleted", prefix=prefix, count=len(keys))
