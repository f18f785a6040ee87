"""The live end of one session's log in this process, shared by all its followers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from server.kernel.event import Chunk

RING_BYTES = 1024 * 1024
"""How much of the log's end is kept in memory; who is further behind reads from the store."""

FOLLOWERS_PER_MILLISECOND = 20
MAX_TICK_SECONDS = 0.1
"""With n followers, wake-ups are at least n/20 ms apart (at most 100 ms), so that slow readers get few large frames instead of a
backlog of small ones. Measured in JOURNAL.md section 4: 1,000 followers fall behind without, and keep up with it."""


@dataclass(frozen=True)
class Events:
    """A frame that holds consecutive events; the same object goes to every follower at the same place."""

    frame: bytes
    last_seq: int


class Feed:
    """A bounded ring of committed chunks and a wake-up.

    `driven` says whether this process writes the session's log: then `publish` tells of every event. Otherwise the feed knows
    nothing, and followers look into the store.
    """

    def __init__(self, frame: Callable[[bytes], bytes]) -> None:
        self._frame = frame
        self._ring: deque[Chunk] = deque()
        self._ring_bytes = 0
        self._tail = 0
        self._visible = 0
        self._joined: dict[int, Events] = {}
        self._wake = asyncio.Event()
        self._tick: asyncio.TimerHandle | None = None
        self._driver: object | None = None
        self._turn_id = ""
        self.followers = 0

    @property
    def driven(self) -> bool:
        """Whether this process writes the log."""
        return self._driver is not None

    def drives(self, turn_id: str) -> bool:
        """Whether the turn runs here, and has not ended."""
        return self._driver is not None and self._turn_id == turn_id

    def drive(self, driver: object, next_seq: int, turn_id: str) -> None:
        """`driver` writes the log from `next_seq` on, for a turn."""
        self._forget()
        self._driver = driver
        self._turn_id = turn_id
        self._tail = self._visible = next_seq - 1
        self._notify()

    def release(self, driver: object) -> None:
        """`driver` no longer writes the log; followers find out what that means from the store. Without effect when the session's
        next turn has taken over already."""
        if self._driver is not driver:
            return
        self._show()
        self._driver = None
        self._forget()
        self._notify()

    def turn_ended(self) -> None:
        """The turn has its terminal event; where it is, the store knows."""
        self._turn_id = ""

    def publish(self, chunk: Chunk) -> None:
        """Make a committed chunk visible: at once, or with the next tick when many follow."""
        self._ring.append(chunk)
        self._ring_bytes += len(chunk.data)
        self._tail = chunk.last_seq
        while self._ring_bytes > RING_BYTES and len(self._ring) > 1:
            self._ring_bytes -= len(self._ring.popleft().data)
        if self.followers <= FOLLOWERS_PER_MILLISECOND:
            self._show()
        elif self._tick is None:
            delay = min(MAX_TICK_SECONDS, self.followers / FOLLOWERS_PER_MILLISECOND / 1000)
            self._tick = asyncio.get_running_loop().call_later(delay, self._show)

    @property
    def tail(self) -> int:
        """The last visible seq."""
        return self._visible

    def since(self, after_seq: int) -> Events | None:
        """Visible events after `after_seq`; None when there are none, or when the ring does not reach back that far."""
        if after_seq >= self._visible:
            return None
        joined = self._joined.get(after_seq)
        if joined is None:
            joined = self._join(after_seq)
            if joined is not None:
                self._joined[after_seq] = joined
        return joined

    def news(self) -> asyncio.Event:
        """Set at the next news. Take it before looking at what is there, so that nothing that happens in between is missed."""
        return self._wake

    @staticmethod
    async def wait(news: asyncio.Event, seconds: float) -> bool:
        """Wait for news; False when there were none for `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await news.wait()
        except TimeoutError:
            return False
        return True

    def _join(self, after_seq: int) -> Events | None:
        if not self._ring or after_seq + 1 < self._ring[0].first_seq:
            return None
        parts: list[bytes] = []
        for chunk in reversed(self._ring):
            if chunk.last_seq <= after_seq:
                break
            if chunk.last_seq <= self._visible:
                parts.append(chunk.after(after_seq).data)
        return Events(self._frame(b"".join(reversed(parts))), self._visible)

    def _show(self) -> None:
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        if self._visible != self._tail:
            self._visible = self._tail
            self._joined.clear()
            self._notify()

    def _forget(self) -> None:
        self._ring.clear()
        self._ring_bytes = 0
        self._joined.clear()

    def _notify(self) -> None:
        # Who waits holds the old event; who comes later waits for the next one.
        self._wake.set()
        self._wake = asyncio.Event()
