"""The blocking client's side of the wire: one channel, its calls and streams, and their end."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from treadle.session.v1 import session_service_pb2 as pb
from treadle.session.v1.session_service_pb2_grpc import SessionServiceStub
from treadle_client.errors import ClientClosed, failure_of
from treadle_client.following import Request
from treadle_client.retry import Backoff, Retry
from treadle_client.silence import SilenceWatch
from treadle_client.target import Target

if TYPE_CHECKING:
    from treadle_client.stream import EventStream

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")
Stub = TypeVar("Stub")


class Link:
    """For any number of threads."""

    def __init__(self, target: Target, retry: Retry, *, silence_seconds: float, timeout_seconds: float) -> None:
        self.target = target
        self.retry = retry
        self.watch = SilenceWatch(silence_seconds)
        self._timeout = timeout_seconds
        self._channel = _channel(target)
        self.stub = SessionServiceStub(self._channel)
        self._streams: weakref.WeakSet[EventStream] = weakref.WeakSet()
        self._closing = threading.Lock()
        self._closed = threading.Event()

    def service(self, stub: Callable[[grpc.Channel], Stub]) -> Stub:
        """The calls of a service."""
        return stub(self._channel)

    def add(self, stream: EventStream) -> None:
        """A stream to end at `close`. Errors: ClientClosed."""
        with self._closing:
            if self._closed.is_set():
                raise ClientClosed
            self._streams.add(stream)

    def open(self, request: Request) -> Any:
        """Begin the call of a stream. Errors: ClientClosed."""
        method: Any = self.stub.ExecuteSession if isinstance(request, pb.ExecuteSessionRequest) else self.stub.Resume
        with self._closing:
            if self._closed.is_set():
                raise ClientClosed
            return method(request, metadata=self.target.metadata)

    def ask(self, method: grpc.UnaryUnaryMultiCallable[Asked, Answer], request: Asked, *, again: bool, seconds: float = 0.0) -> Answer:
        """A call that is no stream. `again`: it may be repeated, since it changes nothing or carries a request_id. `seconds`: it may
        take so long, if that is longer than usual. Errors: CallFailed, ClientClosed."""
        backoff = Backoff(self.retry)
        while True:
            with self._closing:
                if self._closed.is_set():
                    raise ClientClosed
                call: Any = method.future(request, metadata=self.target.metadata, timeout=max(self._timeout, seconds))
            try:
                answer: Answer = call.result()
            except grpc.RpcError as error:
                failure = failure_of(error)
                failure.__cause__ = error
            except BaseException:
                call.cancel()
                raise
            else:
                return answer
            if self._closed.is_set():
                raise ClientClosed from failure
            if not again:
                raise failure
            self._closed.wait(backoff.after(failure))

    def stream(self, method: grpc.UnaryStreamMultiCallable[Asked, Answer], request: Asked) -> Iterator[Answer]:
        """A stream that has an end soon, and is not resumed. Errors: CallFailed, ClientClosed."""
        with self._closing:
            if self._closed.is_set():
                raise ClientClosed
            call: Any = method(request, metadata=self.target.metadata)
        try:
            yield from call
        except grpc.RpcError as error:
            if self._closed.is_set():
                raise ClientClosed from error
            raise failure_of(error) from error
        finally:
            call.cancel()

    def close(self) -> None:
        """End everything; who waits gets ClientClosed."""
        with self._closing:
            self._closed.set()
            streams = list(self._streams)
        for stream in streams:
            stream.shut(ClientClosed())
        self._channel.close()
        self.watch.close()


def _channel(target: Target) -> grpc.Channel:
    if target.credentials is None:
        return grpc.insecure_channel(target.address, options=target.options)
    return grpc.secure_channel(target.address, target.credentials, options=target.options)
