"""From what an agent says to numbered, bounded events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from treadle.session.v1 import event_pb2 as session
from treadle.worker.v1.worker_event_pb2 import WorkerEvent
from worker.limits import MAX_EVENT_BYTES, cut_to_fit
from worker.spool import Spool

COALESCE_SECONDS = 0.1
COALESCE_CHARS = 4096
_PIECE_CHARS = 32 * 1024
_NANOS = 1_000_000_000


class SpoolEmitter:
    """The Emitter that providers get: joins small deltas, stamps and cuts events, hands them to the spool.

    Waiting deltas go out before the next whole event, when there are 4 Ki characters of them, or after 100 ms if there is room.
    At the end, `flush` sends what waits and `stop` drops the timer.
    """

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._waiting: dict[tuple[str, session.Channel], list[str]] = {}
        self._waiting_chars = 0
        self._offsets: dict[tuple[str, session.Channel], int] = {}
        self._timer: asyncio.TimerHandle | None = None

    async def emit(self, event: WorkerEvent) -> None:
        """See Emitter."""
        if self._waiting:
            await self.flush()
        if not event.HasField("occurred_at"):
            stamp(event)
        data = event.SerializeToString()
        if len(data) > MAX_EVENT_BYTES:
            data = cut_to_fit(event)
        if self._spool.has_room:
            self._spool.push(data)
        else:
            await self._spool.append(data)

    async def delta(self, item_id: str, channel: session.Channel, text: str) -> None:
        """See Emitter."""
        if not text.isascii():
            # Half of a surrogate pair, which models' JSON may hold, has no UTF-8.
            text = text.encode("utf-8", "replace").decode()
        self._waiting.setdefault((item_id, channel), []).append(text)
        self._waiting_chars += len(text)
        if self._waiting_chars >= COALESCE_CHARS:
            await self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(COALESCE_SECONDS, self._timed_flush)

    async def flush(self) -> None:
        """Send the deltas that wait."""
        for event in self._take():
            await self._spool.append(event)

    def stop(self) -> None:
        """Drop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _timed_flush(self) -> None:
        self._timer = None
        if not self._spool.has_room:
            # Nothing is lost: they wait here, and at 4 Ki characters `delta` waits for the spool like everything else.
            self._timer = asyncio.get_running_loop().call_later(COALESCE_SECONDS, self._timed_flush)
            return
        for event in self._take():
            self._spool.push(event)

    def _take(self) -> list[bytes]:
        self.stop()
        waiting, self._waiting, self._waiting_chars = self._waiting, {}, 0
        events = []
        for (item_id, channel), texts in waiting.items():
            for piece in _pieces("".join(texts)):
                offset = self._offsets.get((item_id, channel), 0)
                self._offsets[item_id, channel] = offset + len(piece)
                event = WorkerEvent(item_id=item_id, content_delta=session.ContentDelta(channel=channel, offset=offset, data=piece))
                stamp(event)
                events.append(event.SerializeToString())
        return events


def _pieces(text: str) -> Iterator[str]:
    for start in range(0, len(text), _PIECE_CHARS):
        yield text[start : start + _PIECE_CHARS]


def stamp(event: WorkerEvent) -> None:
    """Set when it happened to now."""
    now = time.time_ns()
    event.occurred_at.seconds = now // _NANOS
    event.occurred_at.nanos = now % _NANOS
