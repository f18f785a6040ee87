"""The inbox of a turn: from the server's Control to the provider."""

from __future__ import annotations

import asyncio
from collections import deque

from treadle.worker.v1 import worker_service_pb2 as wire
from worker.emitter import SpoolEmitter
from worker.notices import Notices
from worker.provider import UserMessage


class TurnInbox:
    """The Inbox that providers get."""

    def __init__(self, emitter: SpoolEmitter, notices: Notices) -> None:
        self._emitter = emitter
        self._notices = notices
        self._waiting: deque[UserMessage] = deque()
        self._known: set[str] = set()
        self._news = asyncio.Event()
        self._readers = 0

    async def next(self) -> UserMessage:
        """See Inbox."""
        self._readers += 1
        try:
            while not self._waiting:
                self._look()
                self._news.clear()
                await self._news.wait()
            return self._waiting.popleft()
        finally:
            self._readers -= 1
            self._look()

    async def taken(self, input_id: str) -> None:
        """See Inbox."""
        await self._emitter.flush()
        self._notices.tell(wire.WorkerNotice(input_taken=input_id))

    def give(self, input_id: str, text: str) -> None:
        """An input from the server; a repeated one changes nothing."""
        if input_id not in self._known:
            self._known.add(input_id)
            self._waiting.append(UserMessage(input_id, text))
            self._news.set()
            self._look()

    def _look(self) -> None:
        self._notices.want(wanted=self._readers > len(self._waiting))
