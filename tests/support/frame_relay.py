"""A gRPC relay in front of a real server that ends, silences or falsifies streams at a chosen frame.

Frames are split, so that each holds one event: a stream can be cut between any two. What a stream's client gets is what `tamper` makes
of the frames; everything else passes as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import grpc

from server.api.status import status_of
from server.kernel.errors import KernelError
from treadle.session.v1 import session_service_pb2 as pb

STREAMS = {"/treadle.session.v1.SessionService/ExecuteSession", "/treadle.session.v1.SessionService/Resume"}

Frames = AsyncIterator[pb.ResumeResponse]
Tamper = Callable[[int, Frames], Frames]
"""(the number of the stream from 0, what the server sends) → what its client gets."""


class End(Exception):
    """Ends a stream with a status."""

    def __init__(self, code: grpc.StatusCode, details: bytes = b"") -> None:
        super().__init__(code)
        self.code = code
        self.details = details


def typed(error: KernelError) -> End:
    """An end as a Treadle server writes it."""
    code, status = status_of(error)
    return End(code, status.SerializeToString())


async def as_it_is(_: int, frames: Frames) -> Frames:
    async for frame in frames:
        yield frame


class FrameRelay(grpc.GenericRpcHandler):
    """See above."""

    def __init__(self, upstream: grpc.aio.Channel) -> None:
        self.address = ""
        self.tamper: Tamper = as_it_is
        self.asked: list[str] = []
        """The names of all calls."""
        self.open = 0
        """Streams that are open now."""
        self._upstream = upstream
        self._streams = 0

    def service(self, handler_call_details: Any) -> grpc.RpcMethodHandler:
        method = handler_call_details.method
        self.asked.append(method.rpartition("/")[2])

        async def unary(request: bytes, context: Any) -> bytes:
            return await self._unary(method, request, context)

        async def stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
            async with aclosing(self._stream(method, request, context)) as frames:
                async for frame in frames:
                    yield frame

        return grpc.unary_stream_rpc_method_handler(stream) if method in STREAMS else grpc.unary_unary_rpc_method_handler(unary)

    async def _unary(self, method: str, request: bytes, context: Any) -> bytes:
        try:
            return await self._upstream.unary_unary(method)(request, metadata=_key(context))
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details(), trailing_metadata=tuple(error.trailing_metadata()))
            raise

    async def _stream(self, method: str, request: bytes, context: Any) -> AsyncIterator[bytes]:
        number, self._streams = self._streams, self._streams + 1
        self.open += 1
        call = self._upstream.unary_stream(method)(request, metadata=_key(context))
        try:
            async with aclosing(self.tamper(number, _one_by_one(call))) as frames:
                async for frame in frames:
                    yield frame.SerializeToString()
        except End as end:
            await context.abort(end.code, "ended by the relay", trailing_metadata=(("grpc-status-details-bin", end.details),))
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details(), trailing_metadata=tuple(error.trailing_metadata()))
        finally:
            self.open -= 1
            call.cancel()


async def _one_by_one(call: Any) -> Frames:
    async for data in call:
        frame = pb.ResumeResponse.FromString(data)
        if frame.HasField("events"):
            for event in frame.events.events:
                yield pb.ResumeResponse(events=pb.EventBatch(events=[event]))
        else:
            yield frame


def _key(context: Any) -> tuple[tuple[str, str], ...]:
    return tuple((key, value) for key, value in context.invocation_metadata() if key == "authorization")


async def for_ever(*_: Any) -> None:
    """Say nothing more."""
    await asyncio.Event().wait()


@asynccontextmanager
async def frame_relay(upstream: str, *, credentials: grpc.ServerCredentials | None = None) -> AsyncIterator[FrameRelay]:
    """A relay on a free port; with `credentials` it speaks TLS."""
    async with grpc.aio.insecure_channel(upstream, options=(("grpc.use_local_subchannel_pool", 1),)) as channel:
        relay = FrameRelay(channel)
        server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        server.add_generic_rpc_handlers((relay,))
        listen = "127.0.0.1:0"
        port = server.add_insecure_port(listen) if credentials is None else server.add_secure_port("localhost:0", credentials)
        await server.start()
        relay.address = f"127.0.0.1:{port}" if credentials is None else f"https://localhost:{port}"
        try:
            yield relay
        finally:
            await server.stop(None)
