"""What must not stop half-way because a caller leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Finishing:
    """Runs calls to their end; a caller who is cancelled meanwhile leaves alone. Whoever owns this waits with `finished` before it ends."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self, call: Coroutine[Any, Any, T]) -> T:
        """The result of the call. Errors: those of the call."""
        return await asyncio.shield(self.begin(call))

    async def run_holding(self, call: Coroutine[Any, Any, T]) -> T:
        """The same for a caller who holds what the call needs: one who is cancelled leaves when it has ended. Errors: those of the call."""
        task = self.begin(call)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()  # nobody is left to hear it
            raise

    def begin(self, call: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """The same for what nobody waits for; such a call tells of its errors by itself."""
        task = asyncio.create_task(call)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def finished(self) -> None:
        """Wait for the calls that run now; how they end is their callers' business."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
