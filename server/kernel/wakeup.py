"""A wake-up for many waiters that costs one future per wait."""

from __future__ import annotations

import asyncio


class Wakeup:
    """Tells all who wait that something changed.

    Nothing is missed by one who takes `count` before looking at what is there, and then waits for what came after it:

        seen = wakeup.count
        if not (found := look()):
            await wakeup.after(seen)

    asyncio.Condition needs a coroutine and a lock for each notification, and asyncio.timeout four objects for each wait; these
    waits happen for every event of every follower.
    """

    def __init__(self) -> None:
        self.count = 0
        self._waiters: set[asyncio.Future[bool]] = set()

    @property
    def waiting(self) -> int:
        """How many wait now."""
        return len(self._waiters)

    def notify(self) -> None:
        """Wake all who wait now."""
        self.count += 1
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            _wake(waiter, news=True)

    async def after(self, seen: int, seconds: float | None = None) -> bool:
        """Wait until `notify` was called more than `seen` times; False when `seconds` passed without."""
        if self.count != seen:
            return True
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiters.add(waiter)
        timer = None if seconds is None else loop.call_later(seconds, _wake, waiter, False)
        try:
            return await waiter
        finally:
            self._waiters.discard(waiter)
            if timer is not None:
                timer.cancel()


def _wake(waiter: asyncio.Future[bool], news: bool) -> None:
    if not waiter.done():
        waiter.set_result(news)
