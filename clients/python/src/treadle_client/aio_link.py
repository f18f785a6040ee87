"""The async client's side of the wire: one channel, its calls and streams, and their end."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from treadle.session.v1 import session_service_pb2 as pb
from treadle.session.v1.session_service_pb2_grpc import SessionServiceStub
from treadle_client.errors import ClientClosed, failure_of
from treadle_client.following import Request
from treadle_client.retry import Backoff, Retry
from treadle_client.target import Target

if TYPE_CHECKING:
    from treadle.session.v1.session_service_pb2_grpc import SessionServiceAsyncStub
    from treadle_client.aio_stream import AsyncEventStream

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")
Stub = TypeVar("Stub")


class AsyncLink:
    """For the event loop in which the first call is made."""

    def __init__(self, target: Target, retry: Retry, *, silence_seconds: float, timeout_seconds: float) -> None:
        self.target = target
        self.retry = retry
        self.silence_seconds = silence_seconds
        self._timeout = timeout_seconds
        self._opened: grpc.aio.Channel | None = None
        self._streams: weakref.WeakSet[AsyncEventStream] = weakref.WeakSet()
        self._closed = asyncio.Event()

    @property
    def stub(self) -> SessionServiceAsyncStub:
        """Errors: ClientClosed."""
        return self.service(SessionServiceStub)

    def service(self, stub: Callable[[grpc.aio.Channel], Stub]) -> Stub:
        """The calls of a service. Errors: ClientClosed."""
        if self._closed.is_set():
            raise ClientClosed
        if self._opened is None:
            # Not before the first call: a channel belongs to the event loop that it is made in.
            self._opened = _channel(self.target)
        return stub(self._opened)

    def add(self, stream: AsyncEventStream) -> None:
        """A stream to end at `close`. Errors: ClientClosed."""
        if self._closed.is_set():
            raise ClientClosed
        self._streams.add(stream)

    def open(self, request: Request) -> Any:
        """Begin the call of a stream. Errors: ClientClosed."""
        method: Any = self.stub.ExecuteSession if isinstance(request, pb.ExecuteSessionRequest) else self.stub.Resume
        return method(request, metadata=self.target.metadata)

    async def ask(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Asked, Answer], request: Asked, *, again: bool, seconds: float = 0.0
    ) -> Answer:
        """A call that is no stream. `again`: it may be repeated, since it changes nothing or carries a request_id. `seconds`: it may
        take so long, if that is longer than usual. Errors: CallFailed, ClientClosed."""
        backoff = Backoff(self.retry)
        while True:
            if self._closed.is_set():
                raise ClientClosed
            try:
                return await method(request, metadata=self.target.metadata, timeout=max(self._timeout, seconds))
            except grpc.aio.AioRpcError as error:
                failure = failure_of(error)
                failure.__cause__ = error
            except asyncio.CancelledError:
                if self._closed.is_set() and not cancelled_from_outside():
                    raise ClientClosed from None
                raise
            if not again:
                raise failure
            with suppress(TimeoutError):
                async with asyncio.timeout(backoff.after(failure)):
                    await self._closed.wait()

    async def stream(self, method: grpc.aio.UnaryStreamMultiCallable[Asked, Answer], request: Asked) -> AsyncIterator[Answer]:
        """A stream that has an end soon, and is not resumed. Errors: CallFailed, ClientClosed."""
        if self._closed.is_set():
            raise ClientClosed
        call: Any = method(request, metadata=self.target.metadata)
        try:
            async for answer in call:
                yield answer
        except grpc.aio.AioRpcError as error:
            raise failure_of(error) from error
        except asyncio.CancelledError:
            if self._closed.is_set() and not cancelled_from_outside():
                raise ClientClosed from None
            raise
        finally:
            call.cancel()

    async def close(self) -> None:
        """End everything; who waits gets ClientClosed."""
        self._closed.set()
        for stream in list(self._streams):
            stream.shut(ClientClosed())
        if self._opened is not None:
            await self._opened.close(None)


def cancelled_from_outside() -> bool:
    """Whether a CancelledError means this task, and not only the call that it waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _channel(target: Target) -> grpc.aio.Channel:
    if target.credentials is None:
        return grpc.aio.insecure_channel(target.address, options=target.options)
    return grpc.aio.secure_channel(target.address, target.credentials, options=target.options)
