"""WorkerService: the worker's side of the protocol, as protos/treadle/worker/v1 specifies it."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.protobuf.message import Message

from treadle.worker.v1 import worker_service_pb2 as wire
from worker.engine import MAX_TRANSCRIPT_BYTES, Engine
from worker.spool import Spool, SpoolGone, varint

HEARTBEAT_SECONDS = 5.0
PROOF = "x-treadle-proof"
SERVICE = "treadle.worker.v1.WorkerService"

_PIECE_BYTES = 1024 * 1024
_EVENTS_FRAME, _RESULT_FRAME, _HEARTBEAT_FRAME, _NOTICE_FRAME = b"\x0a", b"\x12", b"\x1a\x00", b"\x22"

Context = grpc.aio.ServicerContext[Any, Any]


class WorkerService:
    """Serves one turn to the one server that knows its secret. Frames of both streams have the same fields, so one writer serves both."""

    def __init__(self, secret: bytes, engine: Engine, spool: Spool) -> None:
        self._secret = secret
        self._engine = engine
        self._spool = spool
        self._nonce = secrets.token_bytes(32)
        self._expected = hmac.new(secret, b"server" + self._nonce, hashlib.sha256).hexdigest()
        self._heard = time.monotonic()
        self._streams = 0
        self._newest_stream = 0

    async def orphaned(self, limit: float) -> None:
        """Return once no server that proved itself has been there for `limit` seconds: no call, and no open stream."""
        loop, silent = asyncio.get_running_loop(), asyncio.Event()

        def look() -> None:
            left = limit if self._streams else limit - (time.monotonic() - self._heard)
            silent.set() if left <= 0 else loop.call_later(left, look)

        look()
        await silent.wait()

    async def handshake(self, request: wire.HandshakeRequest, _context: Context) -> wire.HandshakeResponse:
        """Prove this worker, and challenge the server."""
        proof = hmac.new(self._secret, b"worker" + request.nonce, hashlib.sha256).digest()
        return wire.HandshakeResponse(proof=proof, nonce=self._nonce, has_turn=self._engine.started)

    async def load_transcript(self, pieces: AsyncIterator[wire.LoadTranscriptRequest], context: Context) -> wire.LoadTranscriptResponse:
        """Take the agent's memory of earlier turns."""
        await self._check(context)
        if self._engine.started:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the worker has its turn")
        loaded = bytearray()
        async for piece in pieces:
            loaded += piece.data
            if len(loaded) > MAX_TRANSCRIPT_BYTES:
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"a transcript has at most {MAX_TRANSCRIPT_BYTES:,} bytes")
        self._engine.transcript = bytes(loaded)
        return wire.LoadTranscriptResponse()

    async def read_transcript(self, _: wire.ReadTranscriptRequest, context: Context) -> AsyncIterator[wire.ReadTranscriptResponse]:
        """Hand out what the agent wants to remember."""
        await self._check(context)
        if self._engine.result is None:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the turn has no result yet")
        kept = self._engine.transcript
        for start in range(0, len(kept), _PIECE_BYTES):
            yield wire.ReadTranscriptResponse(data=kept[start : start + _PIECE_BYTES])

    async def execute_session(self, request: wire.ExecuteSessionRequest, context: Context) -> AsyncIterator[bytes]:
        """Start the turn and stream it."""
        await self._check(context)
        if self._engine.started:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the worker has its turn; use Resume")
        self._engine.start(request)
        async for frame in self._frames(0):
            yield frame

    async def resume(self, request: wire.ResumeRequest, context: Context) -> AsyncIterator[bytes]:
        """Stream what followed."""
        await self._check(context)
        if not self._engine.started:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the worker has no turn yet; use ExecuteSession")
        try:
            self._spool.check(request.after_worker_seq)
            # What the server asks to go on behind is durable there, whether or not an acknowledgement came through.
            self._spool.acknowledge(request.after_worker_seq)
        except SpoolGone as gone:
            await context.abort(grpc.StatusCode.OUT_OF_RANGE, str(gone))
        async for frame in self._frames(request.after_worker_seq):
            yield frame

    async def control(self, request: wire.ControlRequest, context: Context) -> wire.ControlResponse:
        """Interrupt the turn, or bring what the user says."""
        await self._check(context)
        if not self._engine.started:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "the worker has no turn yet")
        match request.WhichOneof("action"):
            case "interrupt":
                self._engine.interrupt(request.interrupt.reason)
            case "input":
                self._engine.give(request.input)
            case "resolve":
                self._engine.resolve(request.resolve)
            case _:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no action that this worker knows")
        return wire.ControlResponse()

    async def acknowledge(self, request: wire.AcknowledgeRequest, context: Context) -> wire.AcknowledgeResponse:
        """Drop what is durable elsewhere."""
        await self._check(context)
        try:
            self._spool.acknowledge(request.worker_seq)
        except SpoolGone as gone:
            await context.abort(grpc.StatusCode.OUT_OF_RANGE, str(gone))
        return wire.AcknowledgeResponse()

    def handlers(self) -> grpc.GenericRpcHandler[Any, Any]:
        """The service for a grpc.aio server; streams carry ready-made bytes."""
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        methods = {
            "Handshake": unary(self.handshake, wire.HandshakeRequest.FromString, _bytes),
            "LoadTranscript": grpc.stream_unary_rpc_method_handler(self.load_transcript, wire.LoadTranscriptRequest.FromString, _bytes),
            "ReadTranscript": stream(self.read_transcript, wire.ReadTranscriptRequest.FromString, _bytes),
            "ExecuteSession": stream(self.execute_session, wire.ExecuteSessionRequest.FromString, None),
            "Resume": stream(self.resume, wire.ResumeRequest.FromString, None),
            "Control": unary(self.control, wire.ControlRequest.FromString, _bytes),
            "Acknowledge": unary(self.acknowledge, wire.AcknowledgeRequest.FromString, _bytes),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def _check(self, context: Context) -> None:
        given = dict(context.invocation_metadata() or ()).get(PROOF, "")
        if not isinstance(given, str) or not hmac.compare_digest(given.encode(), self._expected.encode()):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the caller does not know the turn's secret")
        self._heard = time.monotonic()

    async def _frames(self, after: int) -> AsyncIterator[bytes]:
        """Everything after `after`, all that waits in each frame, until the result or until a newer stream takes over."""
        self._newest_stream += 1
        mine = self._newest_stream
        notices = self._engine.notices.reader()
        self._streams += 1
        self._spool.wake()
        try:
            while self._newest_stream == mine:
                batch, after = self._spool.frame(after, up_to=notices.limit)
                if batch:
                    yield _EVENTS_FRAME + varint(len(batch)) + batch
                elif (notice := notices.next()) is not None:
                    yield _NOTICE_FRAME + varint(len(notice)) + notice
                elif self._engine.result is not None:
                    yield _delimited(_RESULT_FRAME, self._engine.result)
                    return
                elif not await self._news_within(HEARTBEAT_SECONDS, after):
                    yield _HEARTBEAT_FRAME
        finally:
            self._streams -= 1
            self._heard = time.monotonic()

    async def _news_within(self, seconds: float, after: int) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._spool.news(after)
        except TimeoutError:
            return False
        return True


def _delimited(tag: bytes, message: Message) -> bytes:
    data = message.SerializeToString()
    return tag + varint(len(data)) + data


def _bytes(message: Message) -> bytes:
    return message.SerializeToString()
