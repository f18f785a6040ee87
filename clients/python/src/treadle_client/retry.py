"""How often and how long something is tried again."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from treadle_client.errors import CallFailed


@dataclass(frozen=True)
class Retry:
    """Waits double from the first to the longest; each is shortened at random by up to a half, so that clients do not fall into step."""

    first_seconds: float = 0.1
    longest_seconds: float = 5.0
    unanswered_seconds: float = 10.0
    """How long a server is tried that has not answered yet, and how long a call that is no stream is repeated. 0: no second time."""
    away_seconds: float = 120.0
    """How long a server may be away that has answered before."""


DEFAULT = Retry()

PUSH_SECONDS = 120.0
"""For a push, which waits for another host."""


class Backoff:
    """The waits between the attempts of one call."""

    def __init__(self, retry: Retry) -> None:
        self.limit_seconds = retry.unanswered_seconds
        self._retry = retry
        self._since: float | None = time.monotonic()
        self._delay = 0.0

    def alive(self) -> None:
        """The server does what it should: it is not given up."""
        self._since = None

    def progress(self) -> None:
        """An attempt brought something: also the waits begin anew."""
        self._since, self._delay = None, 0.0

    def after(self, failure: CallFailed) -> float:
        """Seconds to wait before the next attempt. Errors: `failure`, when it is final or has lasted for too long."""
        if not failure.retryable:
            raise failure
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        delay = min(self._delay * 2, self._retry.longest_seconds) if self._delay else self._retry.first_seconds
        if now + delay - self._since > self.limit_seconds:
            # Who asks once more after this begins anew.
            self.progress()
            raise failure
        self._delay = delay
        return delay * random.uniform(0.5, 1.0)  # noqa: S311
