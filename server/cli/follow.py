"""Follow a session's events to the end, through restarts of the server: after a cut it goes on behind the last event that was shown."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc

from server.cli.connection import Connection, explain, reason_of
from treadle.session.v1 import session_service_pb2 as pb
from treadle.session.v1.event_pb2 import TURN_STATUS_UNSPECIFIED, Event, TurnStatus

SILENCE_SECONDS = 60.0
"""A stream sends a heartbeat every 15 s; after this much silence it is dead."""
GIVE_UP_SECONDS = 120.0
"""How long a server may be away before the command gives up; a restart takes a few seconds."""
_FIRST_DELAY, _LONGEST_DELAY = 0.2, 5.0
_COME_BACK = ("SHUTTING_DOWN", "STORE_UNAVAILABLE", "SLOW_CONSUMER")
"""Reasons that a server gives when the same call is right a moment later."""
_CUT = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED)
"""How gRPC shows that the connection, not the server, ended a call; there is no typed reason then."""

Stream = grpc.aio.UnaryStreamCall[Any, Any]


class Follower:
    """Hands each event to `show`, in order and once. `notice` is told, in a sentence, when the connection is lost and found."""

    def __init__(self, connection: Connection, show: Callable[[Event], None], notice: Callable[[str], None]) -> None:
        self.session_id = ""
        self.turn_id = ""
        self.last_seq = 0
        self.status: TurnStatus = TURN_STATUS_UNSPECIFIED
        """How the followed turn ended; unspecified when no end was seen."""
        self._connection = connection
        self._show = show
        self._notice = notice
        self._last_frame = time.monotonic()
        self._answered = False
        self._lost = False

    async def execute(self, request: pb.ExecuteSessionRequest) -> None:
        """Start a turn and follow it to its end. Errors: CommandFailed."""
        stub, metadata = self._connection.stub, self._connection.metadata

        def call() -> Stream:
            # The request_id makes it safe to ask again as long as no answer came.
            if not self.session_id:
                return stub.ExecuteSession(request, metadata=metadata)
            return stub.Resume(pb.ResumeRequest(session_id=self.session_id, after_seq=self.last_seq), metadata=metadata)

        await self._follow(call)

    async def resume(self, session_id: str, *, after_seq: int, live: bool) -> None:
        """Replay what came after `after_seq` and, if `live`, follow until no turn is active. Errors: CommandFailed."""
        stub, metadata = self._connection.stub, self._connection.metadata
        self.session_id, self.last_seq = session_id, after_seq

        def call() -> Stream:
            return stub.Resume(pb.ResumeRequest(session_id=session_id, after_seq=self.last_seq, follow=live), metadata=metadata)

        await self._follow(call)

    async def _follow(self, call: Callable[[], Stream]) -> None:
        delay = _FIRST_DELAY
        while True:
            before = self._last_frame
            try:
                if await self._read(call()):
                    return
            except grpc.aio.AioRpcError as error:
                if not self._worth_a_retry(error):
                    raise explain(error, self._connection.target) from None
            except TimeoutError:
                pass  # silent for too long: as good as cut
            if not self._lost:
                self._lost = True
                self._notice("the connection is lost; trying to go on")
            delay = _FIRST_DELAY if self._last_frame != before else min(delay * 2, _LONGEST_DELAY)
            await asyncio.sleep(delay)

    async def _read(self, stream: Stream) -> bool:
        """Whether the stream came to its proper end."""
        frames = aiter(stream)
        try:
            while True:
                async with asyncio.timeout(SILENCE_SECONDS):
                    frame = await anext(frames, None)
                if frame is None or frame.HasField("closed"):
                    return frame is not None
                self._take(frame)
        finally:
            stream.cancel()

    def _take(self, frame: Any) -> None:
        self._last_frame, self._answered = time.monotonic(), True
        if self._lost:
            self._lost = False
            self._notice("connected again")
        if frame.HasField("started"):
            self.session_id = frame.started.session_id
            self.turn_id = self.turn_id or frame.started.turn_id
        for event in frame.events.events:
            self.last_seq = event.seq
            if event.HasField("turn_completed") and self.turn_id in ("", event.turn_id):
                self.status = event.turn_completed.status
            self._show(event)

    def _worth_a_retry(self, error: grpc.aio.AioRpcError) -> bool:
        """A server that never answered is not there; one that did comes back."""
        reason = reason_of(error)
        passing = reason in _COME_BACK or (self._answered and not reason and error.code() in _CUT)
        return passing and time.monotonic() - self._last_frame < GIVE_UP_SECONDS
