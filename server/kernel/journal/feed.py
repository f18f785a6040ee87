"""The live end of one session's log in this process, shared by all its followers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from server.kernel.event import Chunk, Tail
from server.kernel.wakeup import Wakeup

RING_BYTES = 1024 * 1024
"""How much of the log's end is kept in memory; who is further behind reads from the store."""

FRAME_BYTES = 1024 * 1024
"""About how much goes into one frame; clients with gRPC's default options take 4 MiB."""

FOLLOWERS_PER_MILLISECOND = 20
LOOK_SECONDS = 0.005
PAUSE_SHARE = 0.33
MAX_TICK_SECONDS = 0.5
"""With n followers, wake-ups are at least n/20 ms apart. One that comes while the last round is still being written waits until nine
of ten followers are back, and then for a third of what the round took; 500 ms at most. So readers get few large frames, not a backlog
of small ones, and the loop has time for the worker's events and for other sessions. Measured: at a fixed 50 ms the round itself took
70 to 100 ms, the worker's stream was read once per round, and 1,000 followers got 12 of 100 events per second."""


@dataclass(frozen=True)
class Events:
    """A frame that holds consecutive events; the same object goes to every follower at the same place."""

    frame: bytes
    last_seq: int


class Feed:
    """A bounded ring of committed chunks and a wake-up.

    `driven` says whether this process writes the session's log: then `publish` tells of every event. Otherwise the feed knows
    nothing, and followers look into the store. `news` tells of every change.
    """

    def __init__(self, frame: Callable[[bytes], bytes]) -> None:
        self._frame = frame
        self._ring: deque[Chunk] = deque()
        self._ring_bytes = 0
        self._tail = 0
        self._visible = 0
        self._joined: dict[int, Events] = {}
        self.news = Wakeup()
        self._tick: asyncio.TimerHandle | None = None
        self._driver: object | None = None
        self._turn_id = ""
        self._elsewhere: Tail | None = None
        self.followers = 0
        self._shown_at = 0.0
        self._late = False

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
        self.news.notify()

    def release(self, driver: object) -> None:
        """`driver` no longer writes the log; followers find out what that means from the store. Without effect when the session's
        next turn has taken over already."""
        if self._driver is not driver:
            return
        self._show()
        self._driver = None
        self._forget()
        self.news.notify()

    def seen_elsewhere(self, tail: Tail | None) -> None:
        """Where the log stands in the store; None for a session that is gone. The first sight is news too: nobody knows what was before."""
        if tail is None or tail != self._elsewhere:
            self._elsewhere = tail
            self.news.notify()

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
            self._tick = asyncio.get_running_loop().call_later(self.followers / FOLLOWERS_PER_MILLISECOND / 1000, self._look)

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

    def _join(self, after_seq: int) -> Events | None:
        if not self._ring or after_seq + 1 < self._ring[0].first_seq:
            return None
        wanted: list[Chunk] = []
        for chunk in reversed(self._ring):
            if chunk.last_seq <= after_seq:
                break
            if chunk.last_seq <= self._visible:
                wanted.append(chunk)
        # The oldest first, as many as fit: who is far behind comes back for the rest.
        parts: list[bytes] = []
        size, last = 0, after_seq
        for chunk in reversed(wanted):
            if parts and size + len(chunk.data) > FRAME_BYTES:
                break
            parts.append(chunk.after(after_seq).data)
            size += len(parts[-1])
            last = chunk.last_seq
        return Events(self._frame(b"".join(parts)), last)

    def _look(self) -> None:
        """Show, unless the last round is still under way."""
        loop = asyncio.get_running_loop()
        took = loop.time() - self._shown_at
        if took < MAX_TICK_SECONDS and self.news.waiting < self.followers * 9 // 10:
            self._late = True
            self._tick = loop.call_later(LOOK_SECONDS, self._look)
        elif self._late:
            self._late = False
            self._tick = loop.call_later(min(MAX_TICK_SECONDS, took) * PAUSE_SHARE, self._show)
        else:
            self._show()

    def _show(self) -> None:
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        if self._visible != self._tail:
            self._visible = self._tail
            self._joined.clear()
            self._shown_at = asyncio.get_running_loop().time()
            self.news.notify()

    def _forget(self) -> None:
        self._ring.clear()
        self._ring_bytes = 0
        self._joined.clear()
