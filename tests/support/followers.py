"""Readers of sessions that come back after every cut, and remember how often they had to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager

from support.ways_in import BACK_OFF_SECONDS, STREAMS, Cut, Door, Events, Reader

SECONDS = 100
_LONGEST_WAIT_SECONDS = 0.8


class Follower:
    """One, on one transport: it asks behind the last event that it has, until its stream is complete."""

    def __init__(self, transport: str, read: Reader, door: Door, session_id: str) -> None:
        self.transport = transport
        self.session_id = session_id
        self.events: Events = []
        self.cuts = 0
        """How many connections were cut that had brought events."""
        self._news = asyncio.Event()
        self.task = asyncio.create_task(self._follow(read, door))

    @property
    def said(self) -> list[str]:
        """What the agent said, as far as it came."""
        return [event.message.parts[0].text for event in self.events if event.HasField("message")]

    async def until(self, reached: Callable[[], bool]) -> None:
        """Errors: AssertionError when the stream was complete before; what ended it."""
        while not reached():
            self._news.clear()
            news = asyncio.create_task(self._news.wait())
            try:
                await asyncio.wait({news, self.task}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                news.cancel()
            if self.task.done():
                self.task.result()
                assert reached(), f"{self.transport}: complete after {len(self.events)} events"

    async def _follow(self, read: Reader, door: Door) -> None:
        wait = BACK_OFF_SECONDS
        while True:
            brought = False
            try:
                async with aclosing(read(door, self.session_id, len(self.events))) as stream:
                    async for events in stream:
                        self.events += events
                        brought = brought or bool(events)
                        self._news.set()
            except Cut:
                self.cuts += brought
                self._news.set()
                # As clients do, who ask less and less often: so many that ask twenty times a second are all that two cores can do.
                wait = BACK_OFF_SECONDS if brought else min(2 * wait, _LONGEST_WAIT_SECONDS)
                await asyncio.sleep(wait)
            else:
                return


class Followers:
    """One per transport and session."""

    def __init__(self, door: Door, sessions: Sequence[str]) -> None:
        self.all = [Follower(transport, read, door, session) for session in sessions for transport, read in STREAMS.items()]

    async def hear(self, count: int) -> None:
        """Until each of them has heard so many messages."""
        async with asyncio.timeout(SECONDS):
            for follower in self.all:
                await follower.until(lambda follower=follower: len(follower.said) >= count)  # type: ignore[misc]

    @asynccontextmanager
    async def cut(self) -> AsyncIterator[None]:
        """What happens in this context cuts the connection of every one of them, in mid-stream."""
        before = [follower.cuts for follower in self.all]
        yield
        async with asyncio.timeout(SECONDS):
            for follower, cuts in zip(self.all, before, strict=True):
                await follower.until(lambda follower=follower, cuts=cuts: follower.cuts > cuts)  # type: ignore[misc]

    async def finish(self) -> list[Follower]:
        """When each of them is complete."""
        async with asyncio.timeout(SECONDS):
            for follower in self.all:
                await follower.task
        return self.all

    def cancel(self) -> None:
        for follower in self.all:
            follower.task.cancel()
