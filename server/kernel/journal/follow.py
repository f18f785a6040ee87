"""Replay and follow as one path: read what is there after `last`; if there is nothing, wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import dataclass

from server.kernel.errors import SessionNotFound, StoreRejected
from server.kernel.event import Chunk, Head
from server.kernel.journal.feed import Events, Feed
from server.kernel.ports.event_codec import EventCodec
from server.kernel.ports.event_store import EventStore

PAGE_BYTES = 256 * 1024


@dataclass(frozen=True)
class Synced:
    """The past has been sent."""

    watermark_seq: int
    open_requests: tuple[str, ...] = ()
    """The agent's requests that waited when the past ended."""


@dataclass(frozen=True)
class Idle:
    """Nothing happened for a while."""

    tail_seq: int


@dataclass(frozen=True)
class Closed:
    """The stream is complete."""

    final_seq: int
    session_state: str


Frame = Events | Synced | Idle | Closed


class Follower:
    """One reader of one log. `turn_id` ends it with that turn; otherwise it ends when no turn is active, and no input is about to start
    the next one."""

    def __init__(
        self, store: EventStore, codec: EventCodec, feed: Feed, session_id: str, *, after_seq: int, turn_id: str, heartbeat_seconds: float
    ) -> None:
        self._store = store
        self._codec = codec
        self._feed = feed
        self._session_id = session_id
        self._last = after_seq
        self._turn_id = turn_id
        self._ended_at = 0
        self._heartbeat = heartbeat_seconds

    async def frames(self, head: Head, *, live: bool) -> AsyncGenerator[Frame, None]:
        """Everything after the cursor up to `head`, Synced, and, when `live`, what follows to the end."""
        watermark = head.next_seq - 1
        end = await self._turn_end()
        async with aclosing(self._up_to(end or watermark)) as past:
            async for events in past:
                yield events
        yield Synced(self._last, head.open_requests)
        if not live:
            yield Closed(self._last, head.session_state)
            return
        async with aclosing(self._live()) as frames:
            async for frame in frames:
                yield frame

    async def _live(self) -> AsyncGenerator[Frame, None]:
        while True:
            seen = self._feed.news.count
            tail = await self._tail()
            end = await self._end()
            goal = min(tail, end) if end is not None else tail
            if self._last < goal:
                async with aclosing(self._up_to(goal)) as pages:
                    async for page in pages:
                        yield page
            elif end is not None and self._last >= end:
                head = await self._store.head(self._session_id)
                yield Closed(self._last, head.session_state if head else "IDLE")
                return
            # Of what others write, or nobody drives, the journal tells its feed (`Journal._watch`).
            elif not await self._feed.news.after(seen, self._heartbeat):
                yield Idle(self._last)

    async def _tail(self) -> int:
        if self._feed.driven:
            return self._feed.tail
        head = await self._store.head(self._session_id)
        if head is None and self._turn_id:
            raise SessionNotFound(self._session_id)
        return head.next_seq - 1 if head else self._last

    async def _end(self) -> int | None:
        """The seq to stop at, once it is known; None while the story goes on."""
        if self._turn_id:
            return await self._turn_end() or None
        if self._feed.driven:
            return None
        head = await self._store.head(self._session_id)
        if head is None:
            return self._last
        return None if head.active_turn_id or head.input_due else head.next_seq - 1

    async def _turn_end(self) -> int:
        """The seq of the followed turn's terminal event; 0 while it has none, and when no turn is followed."""
        if self._turn_id and not self._ended_at and not self._feed.drives(self._turn_id):
            self._ended_at = await self._store.turn_end(self._turn_id)
        return self._ended_at

    async def _up_to(self, goal: int) -> AsyncGenerator[Events, None]:
        """Events to `goal`: from the ring when it reaches back far enough, else from the store, a page ahead of the reader."""
        while self._last < goal:
            if (live := self._ring(goal)) is not None:
                yield live
                continue
            before = self._last
            async with aclosing(self._pages(goal)) as pages:
                async for page in pages:
                    yield page
            if self._last == before:
                await self._explain_nothing()

    async def _explain_nothing(self) -> None:
        """The log is shorter than its head said. Errors: SessionNotFound when the session was deleted, else StoreRejected."""
        if await self._store.head(self._session_id) is None:
            raise SessionNotFound(self._session_id)
        raise StoreRejected(f"the log of session {self._session_id} has a gap behind seq {self._last}")

    def _ring(self, goal: int) -> Events | None:
        """The next events, if they are in the ring and do not go beyond `goal`."""
        live = self._feed.since(self._last) if self._feed.driven else None
        if live is None or live.last_seq > goal:
            return None
        self._last = live.last_seq
        return live

    async def _pages(self, goal: int) -> AsyncGenerator[Events, None]:
        ahead = asyncio.create_task(self._store.read(self._session_id, self._last, max_bytes=PAGE_BYTES))
        try:
            while chunks := await ahead:
                last = chunks[-1].last_seq
                if last < goal:
                    ahead = asyncio.create_task(self._store.read(self._session_id, last, max_bytes=PAGE_BYTES))
                self._last = min(last, goal)
                yield self._page(chunks, goal)
                if last >= goal:
                    return
        finally:
            ahead.cancel()
            with suppress(asyncio.CancelledError):
                await ahead

    def _page(self, chunks: list[Chunk], goal: int) -> Events:
        parts = [chunk.up_to(goal).data for chunk in chunks if chunk.first_seq <= goal]
        return Events(self._codec.frame(b"".join(parts)), min(chunks[-1].last_seq, goal))
