"""Events between the agent and the server: numbered once, kept until acknowledged, bounded."""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import islice

WINDOW_EVENTS = 2048
WINDOW_BYTES = 8 * 1024 * 1024
FRAME_BYTES = 256 * 1024

_EVENTS_OF_BATCH = b"\x12"
_FIRST_OF_BATCH = b"\x08"


class SpoolGone(Exception):
    """The asked-for events were acknowledged and dropped, or never happened."""


def varint(value: int) -> bytes:
    """`value` (not negative) as protobuf writes integers."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_SHORT_LENGTHS = [_EVENTS_OF_BATCH + varint(length) for length in range(4096)]


class Spool:
    """Serialised events, worker_seq `first` to `last`, contiguous from 1.

    Holds at most 2,048 events and 8 MiB (one event more when it alone is larger). A producer waits for room, first come first
    served; room comes from `acknowledge` alone. Events are kept as they go onto the wire, so a frame is a join.
    """

    def __init__(self, *, events: int = WINDOW_EVENTS, size: int = WINDOW_BYTES) -> None:
        self._entries: deque[bytes] = deque()
        self._bytes = 0
        self._max_events = events
        self._max_bytes = size
        self._dropped = 0
        self._line = asyncio.Lock()
        self._in_line = 0
        self._room = asyncio.Event()
        self._news = asyncio.Event()

    @property
    def last(self) -> int:
        """The worker_seq of the newest event; 0 before the first."""
        return self._dropped + len(self._entries)

    @property
    def has_room(self) -> bool:
        """Whether an event can be kept now, with nobody in line for it."""
        if self._in_line:
            return False
        count = len(self._entries)
        return count == 0 or (count < self._max_events and self._bytes < self._max_bytes)

    async def append(self, event: bytes) -> None:
        """Number and keep an event, as soon as there is room."""
        if self.has_room:
            self.push(event)
            return
        self._in_line += 1
        try:
            async with self._line:
                while not self._fits():
                    self._room.clear()
                    await self._room.wait()
                self.push(event)
        finally:
            self._in_line -= 1

    def push(self, event: bytes) -> None:
        """The same without waiting, for a few events of one who has just seen `has_room`."""
        length = len(event)
        entry = (_SHORT_LENGTHS[length] if length < 4096 else _EVENTS_OF_BATCH + varint(length)) + event
        self._entries.append(entry)
        self._bytes += len(entry)
        self._news.set()

    def acknowledge(self, worker_seq: int) -> None:
        """Drop everything up to `worker_seq`; a repeated or older one changes nothing. Errors: SpoolGone beyond the last event."""
        if worker_seq > self.last:
            raise SpoolGone(f"worker_seq {worker_seq} was never sent; the last is {self.last}")
        while self._dropped < worker_seq:
            self._bytes -= len(self._entries.popleft())
            self._dropped += 1
        if self._fits():
            self._room.set()

    def check(self, after: int) -> None:
        """Errors: SpoolGone when the events after `after` are not here any more, or `after` never happened."""
        if not self._dropped <= after <= self.last:
            raise SpoolGone(f"worker_seq {after} is not between {self._dropped} and {self.last}")

    def frame(self, after: int, *, up_to: int | None = None) -> tuple[bytes, int]:
        """A serialised WorkerEventBatch of all that follows `after` (up to event `up_to`), up to 256 KiB, and its last worker_seq; empty
        bytes for nothing."""
        # What was acknowledged while this reader was busy needs no sending: the server has it.
        after = max(after, self._dropped)
        parts: list[bytes] = []
        size = count = 0
        stop = None if up_to is None else max(0, up_to - self._dropped)
        for entry in islice(self._entries, after - self._dropped, stop):
            if parts and size + len(entry) > FRAME_BYTES:
                break
            parts.append(entry)
            size += len(entry)
            count += 1
        if not parts:
            return b"", after
        return _FIRST_OF_BATCH + varint(after + 1) + b"".join(parts), after + count

    async def news(self, after: int) -> None:
        """Return once there may be something after `after`, or `wake` was called."""
        if self.last > after:
            return
        self._news.clear()
        await self._news.wait()

    def wake(self) -> None:
        """Let everybody who waits in `news` look again."""
        self._news.set()

    def _fits(self) -> bool:
        return not self._entries or (len(self._entries) < self._max_events and self._bytes < self._max_bytes)
