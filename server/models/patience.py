"""How long a provider may be silent: after some seconds that is told, once in a request; after the limit nobody waits any longer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from server.kernel.ports.model_gateway import ModelTrouble

SLOW_SECONDS = 30.0
"""Who watches a turn thinks by then that it hangs."""


class Silent(Exception):
    """Nothing came within the limit."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"nothing came for {spoken(seconds)}")
        self.seconds = seconds


class Patience:
    """One request's. `tell` must return at once."""

    def __init__(self, tell: Callable[[ModelTrouble], None]) -> None:
        self._tell = tell
        self._told = False

    @asynccontextmanager
    async def waiting(self, limit: float, missing: str) -> AsyncIterator[None]:
        """Around one wait of at most `limit` seconds; for what, says `missing`. Errors: Silent."""
        timer = None
        if not self._told and limit > SLOW_SECONDS:
            timer = asyncio.get_running_loop().call_later(SLOW_SECONDS, self._tell_slow, limit, missing)
        clock = asyncio.timeout(limit)
        try:
            async with clock:
                yield
        except TimeoutError:
            if clock.expired():
                raise Silent(limit) from None
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _tell_slow(self, limit: float, missing: str) -> None:
        self._told = True
        message = f"{missing} for {spoken(SLOW_SECONDS)}; waiting up to {spoken(limit)}"
        self._tell(ModelTrouble("MODEL_SLOW", message, retryable=True))


def spoken(seconds: float) -> str:
    """Seconds for people: whole ones, and a tenth where less than one makes a difference."""
    return f"{seconds:,.1f}".removesuffix(".0") + " s"
