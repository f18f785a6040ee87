"""The server's side of the worker protocol: one live worker, whose words are checked before anybody believes them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from typing import Any

import grpc

from server.kernel.agent_request import Resolution
from server.kernel.errors import WorkerLost, WorkerProtocolBroken
from server.kernel.ports.launcher import MAX_TRANSCRIPT_BYTES, Assignment, WorkerExit, WorkerItem, WorkerResult
from server.kernel.stall import StallTimeout
from server.workers.dial import Connection, dial
from server.workers.frames import FrameReader, plain
from server.workers.liveness import Watch
from server.workers.requests import resolved
from server.workers.slot import Slot
from treadle.worker.v1 import worker_service_pb2 as wire

_SILENCE_SECONDS = 15.0
_TRANSCRIPT_SECONDS = 20.0
_PIECE_BYTES = 1024 * 1024
_CALL_SECONDS = 5.0
_ACKNOWLEDGE_SECONDS = 2.0
_RETRIES = 5
_RETRY_PAUSE_SECONDS = 0.2
_DRAIN_SECONDS = 2.0
_MAX_DETAILS = 500
_MAX_RECONNECTS = 50
"""Over the worker's life: its socket is on this machine, and one that keeps hanging up plays for time."""

Item = WorkerItem | WorkerResult
Stream = grpc.aio.UnaryStreamCall[Any, bytes]


class WorkerLink:
    """A Worker (see the port) over its slot's socket. Owns its connection and the watch on its process."""

    def __init__(
        self, slot: Slot, watch: Watch, connection: Connection, *, owners: frozenset[int], admit: Callable[[Assignment], None]
    ) -> None:
        self._slot = slot
        self._watch = watch
        self._connection = connection
        self._owners = owners
        self._admit = admit
        self._has_turn = connection.has_turn

    @property
    def has_turn(self) -> bool:
        """See Worker."""
        return self._has_turn

    async def load_transcript(self, transcript: bytes) -> None:
        """See Worker."""
        pieces = _pieces(transcript)
        try:
            await _unary(self._connection.load_transcript(pieces, timeout=_TRANSCRIPT_SECONDS, metadata=self._connection.metadata))
        except grpc.aio.AioRpcError as error:
            raise WorkerLost(f"the worker does not take the transcript: {error.code().name}: {error.details()}") from error

    async def read_transcript(self) -> bytes:
        """See Worker."""
        request = wire.ReadTranscriptRequest()
        call = self._connection.read_transcript(request, timeout=_TRANSCRIPT_SECONDS, metadata=self._connection.metadata)
        kept = bytearray()
        try:
            async for piece in call:
                if not piece.data or len(kept) + len(piece.data) > MAX_TRANSCRIPT_BYTES:
                    raise WorkerProtocolBroken(f"the worker's transcript has empty pieces, or more than {MAX_TRANSCRIPT_BYTES:,} bytes")
                kept += piece.data
        except grpc.aio.AioRpcError as error:
            raise WorkerLost(f"the worker does not hand out its transcript: {error.code().name}: {error.details()}") from error
        finally:
            call.cancel()
        return bytes(kept)

    async def execute(self, assignment: Assignment) -> AsyncGenerator[Item, None]:
        """See Worker. Errors: LaunchFailed when the agent may not run here, WorkerLost, WorkerProtocolBroken."""
        self._admit(assignment)
        async with aclosing(self._stream(0, assignment)) as items:
            async for item in items:
                yield item

    async def resume(self, after_worker_seq: int) -> AsyncGenerator[Item, None]:
        """See Worker. Errors: WorkerLost, WorkerProtocolBroken."""
        async with aclosing(self._stream(after_worker_seq, None)) as items:
            async for item in items:
                yield item

    async def acknowledge(self, worker_seq: int) -> bool:
        """See Worker."""
        request = wire.AcknowledgeRequest(worker_seq=worker_seq)
        try:
            await _unary(self._connection.acknowledge(request, timeout=_ACKNOWLEDGE_SECONDS, metadata=self._connection.metadata))
        except (grpc.aio.AioRpcError, WorkerLost):
            return False
        return True

    async def interrupt(self, reason: str) -> None:
        """See Worker."""
        await self._control(wire.ControlRequest(interrupt=wire.InterruptTurn(reason=reason)))

    async def give(self, input_id: str, text: str) -> None:
        """See Worker."""
        await self._control(wire.ControlRequest(input=wire.GiveInput(input_id=input_id, text=text)))

    async def resolve(self, resolution: Resolution) -> None:
        """See Worker."""
        await self._control(wire.ControlRequest(resolve=resolved(resolution)))

    async def exited(self) -> WorkerExit:
        """See Worker."""
        await self._watch.ended()
        return await asyncio.to_thread(self._slot.exit) or WorkerExit(code=None, log_tail=self._slot.log_tail())

    async def close(self) -> None:
        """See Worker. Repeatable."""
        self._watch.close()
        await self._connection.close()

    async def _control(self, request: wire.ControlRequest) -> None:
        try:
            await _unary(self._connection.control(request, timeout=_CALL_SECONDS, metadata=self._connection.metadata))
        except grpc.aio.AioRpcError as error:
            raise WorkerLost(f"the worker does not take {request.WhichOneof('action')}: {error.details()}") from error

    async def _stream(self, after: int, assignment: Assignment | None) -> AsyncGenerator[Item, None]:
        """Items to the result, over as many connections as it takes while the process lives."""
        reader = FrameReader(after)
        failures = 0
        for _ in range(_MAX_RECONNECTS):
            before = reader.last
            call = self._open(reader.last, assignment)
            try:
                async with aclosing(self._items(call, reader)) as items:
                    async for item in items:
                        yield item
                        if isinstance(item, WorkerResult):
                            return
                reason = "its stream ended without a result"
            except (grpc.aio.AioRpcError, TimeoutError) as error:
                reason = _reason(error)
            finally:
                call.cancel()
            failures = 1 if reader.last > before else failures + 1
            await self._reconnect(reason, failures)
        raise WorkerLost(f"the worker hung up {_MAX_RECONNECTS} times")

    def _open(self, after: int, assignment: Assignment | None) -> Stream:
        metadata = self._connection.metadata
        if assignment is None or self._has_turn:
            return self._connection.resume(wire.ResumeRequest(after_worker_seq=after), metadata=metadata)
        # From here on it may have the turn, whether or not an answer comes back.
        request = wire.ExecuteSessionRequest(
            session_id=assignment.session_id,
            turn_id=assignment.turn_id,
            attempt=assignment.attempt,
            turn_number=assignment.turn_number,
            provider=assignment.provider,
            model=assignment.model,
            prompt=assignment.prompt,
            trace_parent=assignment.trace_parent,
            max_steps=assignment.max_steps,
            approvals=f"APPROVALS_{assignment.approvals or 'UNSPECIFIED'}",
            allowed_hosts=assignment.allowed_hosts,
        )
        self._has_turn = True
        return self._connection.execute(request, metadata=metadata)

    async def _items(self, call: Stream, reader: FrameReader) -> AsyncGenerator[Item, None]:
        """What one call brings. A worker sends a heartbeat every 5 s, so one that is silent for 15 s counts as unreachable."""
        cut = asyncio.create_task(self._cut_after_death(call))
        try:
            async with StallTimeout(_SILENCE_SECONDS) as silence:
                while True:
                    silence.begin()
                    data = await self._read(call)
                    silence.end()
                    if data is None:
                        return
                    for item in reader.read(data):
                        yield item
        finally:
            cut.cancel()

    async def _read(self, call: Stream) -> bytes | None:
        try:
            data = await call.read()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if call.cancelled() and not self._watch.alive and not (task and task.cancelling()):
                return None
            raise
        return data if isinstance(data, bytes) else None

    async def _cut_after_death(self, call: Stream) -> None:
        """A dead worker's stream ends by itself; should it not, it is ended here."""
        await self._watch.ended()
        await asyncio.sleep(_DRAIN_SECONDS)
        call.cancel()

    async def _reconnect(self, reason: str, failures: int) -> None:
        """Prove both sides again. Errors: WorkerLost when the process is gone, or after the last retry."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_RETRY_PAUSE_SECONDS * failures):
                await self._watch.ended()
        while self._watch.alive and failures <= _RETRIES:
            try:
                fresh = await dial(self._slot.socket, await asyncio.to_thread(self._slot.secret), self._owners)
            except (grpc.aio.AioRpcError, OSError) as error:
                reason, failures = _reason(error), failures + 1
                await asyncio.sleep(_RETRY_PAUSE_SECONDS * failures)
                continue
            stale, self._connection = self._connection, fresh
            self._has_turn = fresh.has_turn
            await stale.close()
            return
        # How the connection to a dead process broke says nothing that its exit does not say better.
        raise WorkerLost(f"the worker cannot be reached: {reason}" if self._watch.alive else "the worker died")


def _pieces(data: bytes) -> Iterator[wire.LoadTranscriptRequest]:
    for start in range(0, len(data), _PIECE_BYTES):
        yield wire.LoadTranscriptRequest(data=data[start : start + _PIECE_BYTES])


async def _unary(call: Awaitable[Any]) -> None:
    """Wait for a call's answer. Closing its connection, as a reconnect does, cancels the call; that is no cancellation of this task.
    Errors: WorkerLost then, grpc.aio.AioRpcError."""
    try:
        await call
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise WorkerLost("the connection was given up for a new one") from None


def _reason(error: Exception) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        said = plain(error.details() or "", _MAX_DETAILS)
        if error.code() is grpc.StatusCode.OUT_OF_RANGE:
            raise WorkerProtocolBroken(f"the worker does not have the events that were not acknowledged: {said}") from error
        return f"{error.code().name}: {said}"
    return str(error) or type(error).__name__
