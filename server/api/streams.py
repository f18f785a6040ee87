"""Sending frames to followers: bounded waits, and an orderly end when the server drains."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass

from google.protobuf.timestamp_pb2 import Timestamp

from server import telemetry
from server.api.edge import FAREWELL, STILL_LET_IN, Context, Farewell
from server.kernel.errors import ShuttingDown, SlowConsumer
from server.kernel.journal import Closed, Events, Frame, Synced
from server.kernel.stall import StallTimeout
from treadle.session.v1 import session_service_pb2 as pb

Dress = Callable[[Frame], Awaitable[bytes]]

DRAIN_SECONDS = 2.0
"""A message that is on its way when the server drains may still get there; a client that does not read is not waited for longer."""

LOOK_SECONDS = 15.0
"""So often it is looked whether who follows may still: keys are revoked, and expire."""

LAST_WORD_SECONDS = 5.0
"""A message that was stuck for too long may still get through in this time, and then the client is told, in a last message, why its
stream ends. Later none can be sent: gRPC takes one at a time. The stream ends then without."""


@dataclass(eq=False)
class _Stream:
    context: Context
    task: asyncio.Task[None]
    writing: bool = False


class Streams:
    """The open streams of this server."""

    def __init__(self, *, write_seconds: float) -> None:
        self._write_seconds = write_seconds
        self._streams: set[_Stream] = set()
        self._draining = False

    async def send(
        self,
        context: Context,
        frames: AsyncGenerator[Frame, None],
        *,
        after_seq: int,
        first: bytes,
        dress: Dress | None = None,
        farewell: Farewell | None = None,
    ) -> None:
        """Write `first` and then all frames, each in the form that `dress` gives it (default: as it is, a gRPC message). Once the stream
        has begun, a failure is told by a last message too, which `farewell` makes (default: by the status alone).
        Errors: SlowConsumer, ShuttingDown, and those of `frames`."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a stream is sent from a task")
        stream = _Stream(context, task)
        self._streams.add(stream)
        telemetry.STREAMS.inc()
        try:
            if self._draining:
                raise ShuttingDown
            await self._pump(stream, frames, after_seq, first=first, dress=dress or _as_it_is, farewell=farewell)
        except asyncio.CancelledError:
            if self._draining and task.cancelling():
                # Not the client's doing: say that it is worth coming back.
                task.uncancel()
                raise ShuttingDown from None
            raise
        finally:
            self._streams.discard(stream)
            telemetry.STREAMS.dec()
            await frames.aclose()

    async def finish(self, seconds: float) -> None:
        """Wait until the streams that are open now have ended by themselves, but not longer than `seconds`."""
        if tasks := [stream.task for stream in self._streams]:
            await asyncio.wait(tasks, timeout=seconds)

    async def drain(self) -> None:
        """End all streams with SHUTTING_DOWN; each can be resumed."""
        self._draining = True
        tasks = [stream.task for stream in self._streams]
        # gRPC forgets no message that it has begun to send: with one under way, no last word could be sent.
        for stream in self._streams:
            if not stream.writing:
                stream.task.cancel()
        if not tasks:
            return
        _, slow = await asyncio.wait(tasks, timeout=DRAIN_SECONDS)
        for task in slow:
            task.cancel()
        # Bounded by the edge's own limit for telling the client.
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _pump(
        self,
        stream: _Stream,
        frames: AsyncGenerator[Frame, None],
        after_seq: int,
        *,
        first: bytes,
        dress: Dress,
        farewell: Farewell | None,
    ) -> None:
        # A client that does not read holds one frame here and what fits into the transport, and not for ever.
        stall = StallTimeout(self._write_seconds + LAST_WORD_SECONDS)
        try:
            async with stall:
                await self._write(stream, stall, first, after_seq)
                FAREWELL.set(farewell)
                loop, let_in = asyncio.get_running_loop(), STILL_LET_IN.get()
                look_at = loop.time() + LOOK_SECONDS
                while (frame := await anext(frames, None)) is not None:
                    # A heartbeat comes when nothing else does.
                    if let_in and loop.time() >= look_at:
                        await let_in()
                        look_at = loop.time() + LOOK_SECONDS
                    after_seq = frame.last_seq if isinstance(frame, Events) else after_seq
                    await self._write(stream, stall, await dress(frame), after_seq)
        except TimeoutError:
            if not stall.expired:
                raise
            raise SlowConsumer(after_seq) from None

    async def _write(self, stream: _Stream, stall: StallTimeout, data: bytes, after_seq: int) -> None:
        stall.begin()
        stream.writing = True
        await stream.context.write(data)
        stream.writing = False
        if stall.end() > self._write_seconds:
            raise SlowConsumer(after_seq)
        if self._draining:
            raise ShuttingDown
        telemetry.STREAM_BYTES.inc(len(data))


async def _as_it_is(frame: Frame) -> bytes:
    return encode(frame)


def started(session_id: str, *, turn_id: str = "", existing: bool = False) -> bytes:
    """The first frame of a stream."""
    return pb.ResumeResponse(started=pb.Started(session_id=session_id, turn_id=turn_id, existing=existing)).SerializeToString()


def encode(frame: Frame) -> bytes:
    """A frame as a ResumeResponse; one with events is one already."""
    if isinstance(frame, Events):
        return frame.frame
    if isinstance(frame, Synced):
        synced = pb.Synced(watermark_seq=frame.watermark_seq, open_request_ids=frame.open_requests)
        return pb.ResumeResponse(synced=synced).SerializeToString()
    if isinstance(frame, Closed):
        closed = pb.Closed(final_seq=frame.final_seq, state=f"SESSION_STATE_{frame.session_state}")
        return pb.ResumeResponse(closed=closed).SerializeToString()
    clock = Timestamp()
    clock.GetCurrentTime()
    return pb.ResumeResponse(heartbeat=pb.Heartbeat(tail_seq=frame.tail_seq, server_time=clock)).SerializeToString()
