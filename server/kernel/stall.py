"""A bound for each of many waits, with one timer for all of them."""

from __future__ import annotations

import asyncio
from types import TracebackType


class StallTimeout:
    """Ends the block with TimeoutError when one wait between `begin` and `end` lasts longer than `seconds`.

        async with StallTimeout(30) as stall:
            stall.begin()
            await write(frame)
            stall.end()

    A stream waits thousands of times per second: asyncio.timeout around each wait was a tenth of the server's CPU time. Here a wait
    costs two assignments; the timer looks at most twice per `seconds`, so a wait is ended after `seconds` to 1.5 × `seconds`.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None
        self._timeout = asyncio.timeout(None)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> StallTimeout:
        """Start the timer for the current task."""
        await self._timeout.__aenter__()
        self._look()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Stop the timer. Errors: TimeoutError in place of the cancellation that ended a wait."""
        if self._timer is not None:
            self._timer.cancel()
        await self._timeout.__aexit__(kind, error, trace)

    @property
    def expired(self) -> bool:
        """Whether a wait took too long."""
        return self._timeout.expired()

    def begin(self) -> None:
        """A wait begins."""
        self._since = self._loop.time()

    def end(self) -> float:
        """It is over, also when the timer has just found it too long, but the task has not been cancelled yet. How long it lasted."""
        lasted = 0.0 if self._since is None else self._loop.time() - self._since
        self._since = None
        if self._timeout.when() is not None and not self._timeout.expired():
            self._timeout.reschedule(None)
        return lasted

    def _look(self) -> None:
        now = self._loop.time()
        if self._since is not None and now >= self._since + self._seconds:
            self._timeout.reschedule(now)
        self._timer = self._loop.call_later(self._seconds / 2, self._look)
