"""Blocking storage calls, run in a bounded set of threads so that the event loop never waits for a disk or a socket."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_END = object()


class Threads:
    """A pool of its own: a store that hangs takes none of the threads that others need."""

    def __init__(self, name: str, *, size: int) -> None:
        self._pool = ThreadPoolExecutor(size, thread_name_prefix=name)

    async def run(self, call: Callable[[threading.Event], T]) -> T:
        """The call's result. A cancelled caller sets the event that the call was given, and leaves only when the call has ended:
        whatever the call works on may be removed after that."""
        stop = threading.Event()
        future = self._pool.submit(call, stop)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            stop.set()
            await self._ended(future)
            raise

    async def stream(self, source: Generator[T, None, None]) -> AsyncGenerator[T, None]:
        """The items of a blocking generator, which is closed at the end, also when the consumer leaves early."""
        step: Future[object] | None = None
        try:
            while True:
                step = self._pool.submit(next, source, _END)
                item = await asyncio.wrap_future(step)
                if item is _END:
                    return
                yield item  # type: ignore[misc]  # everything but the end is the generator's
        finally:
            if step is not None:
                await self._ended(step)
            await asyncio.wrap_future(self._pool.submit(source.close))

    async def close(self) -> None:
        """Wait for running calls (each is bounded by its own timeouts); later ones fail."""
        await asyncio.to_thread(self._pool.shutdown)

    async def _ended(self, future: Future[T]) -> None:
        # A cancelled wait does not stop a thread that runs already; and a generator that runs cannot be closed.
        if future.done():
            return
        ended = asyncio.wrap_future(future)
        await asyncio.wait([ended])
        if not ended.cancelled():
            ended.exception()  # its caller has gone; asked for, so that asyncio does not report it as unheard
