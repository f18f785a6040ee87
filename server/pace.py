"""How often somebody who is not trusted may have something done."""

from __future__ import annotations

from collections.abc import Callable


class Pace:
    """So many at once, and so many a second."""

    def __init__(self, burst: int, per_second: float, clock: Callable[[], float]) -> None:
        self._burst = burst
        self._per_second = per_second
        self._clock = clock
        self._left = float(burst)
        self._looked = clock()

    def take(self) -> None:
        """One of them."""
        self._refill()
        self._left -= 1

    def seconds(self) -> float:
        """Until there is one to take."""
        self._refill()
        return max(0.0, (1 - self._left) / self._per_second)

    def _refill(self) -> None:
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._looked) * self._per_second)
        self._looked = now
