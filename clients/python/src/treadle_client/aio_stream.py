"""A stream of events, for `async for` loops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import grpc

from treadle_client.aio_link import AsyncLink, cancelled_from_outside
from treadle_client.errors import CallFailed, ClientClosed, failure_of, unreachable
from treadle_client.event import Event
from treadle_client.following import Following


class AsyncEventStream(AsyncIterator[Event]):
    """Events, each once and in order, through any number of connections. Nothing is sent before the first is asked for.

    It ends with the turn (`execute`) or when no turn is active (`resume`). Errors while iterating: Unavailable when the server is away
    for too long (iterate again to try again; nothing is lost), SequenceBroken, ClientClosed, and what the server refuses.
    A cancel in the middle, for example by a time limit around one step, costs nothing: the next step goes on behind the last event.
    """

    def __init__(self, link: AsyncLink, following: Following) -> None:
        self._link = link
        self._following = following
        self._call: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reading = asyncio.Lock()
        self._shut = asyncio.Event()
        self._shut_with: ClientClosed | None = None

    @property
    def session_id(self) -> str:
        """The session; empty until the server has answered an `execute` without one."""
        return self._following.session_id

    @property
    def turn_id(self) -> str:
        """The turn that `execute` started or found; empty until the server has answered, and for `resume`."""
        return self._following.turn_id

    @property
    def last_seq(self) -> int:
        """The `seq` of the last event that was handed out: where `resume` goes on."""
        return self._following.last_seq

    async def __anext__(self) -> Event:
        async with self._reading:
            while True:
                if self._shut.is_set():
                    raise self._shut_with or StopAsyncIteration
                if (event := self._following.pop()) is not None:
                    return event
                if self._following.done:
                    self._drop()
                    raise StopAsyncIteration
                await self._read()

    async def aclose(self) -> None:
        """End it; also while another task waits for its next event. The turn goes on."""
        self.shut(None)

    def shut(self, error: ClientClosed | None) -> None:
        """For the client: end it, with an error for who still reads."""
        if not self._shut.is_set():
            self._shut_with = error
            self._shut.set()
        if self._call is not None:
            self._call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        await self.aclose()

    def __del__(self) -> None:
        """An iterator that was left in the middle: gRPC keeps its call, which nobody reads, until the channel is closed."""
        if self._call is not None and self._loop is not None:
            # Closed loops have no calls any more. The collector may run in any thread.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._call.cancel)

    async def _read(self) -> None:
        """One frame, or one end of a call and the wait after it."""
        failure: CallFailed | None = None
        try:
            if self._call is None:
                self._loop = asyncio.get_running_loop()
                self._call = self._link.open(self._following.request())
            async with asyncio.timeout(self._link.silence_seconds):
                frame = await self._call.read()
            if frame is not grpc.aio.EOF:  # type: ignore[attr-defined]  # the stubs forgot it
                self._following.take(frame)
                return
        except grpc.aio.AioRpcError as error:
            failure = failure_of(error)
            failure.__cause__ = error
        except TimeoutError:
            failure = unreachable("the stream was silent for too long")
        except asyncio.CancelledError:
            self._drop()
            if self._shut.is_set() and not cancelled_from_outside():
                return
            raise
        except BaseException:
            self._drop()
            raise
        self._drop()
        if not self._shut.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(self._following.cut(failure)):
                    await self._shut.wait()

    def _drop(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None
