"""A limit for how long a blocking read may wait. gRPC's blocking streams have none but a deadline for the whole call."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any, TypeVar

import grpc

T = TypeVar("T")

_LOOKS = 10
"""How often, per limit, the watch looks: it is at most a tenth of the limit late."""


class Silent(Exception):
    """The read waited for too long, and its call was cancelled."""


class SilenceWatch:
    """Cancels calls whose next message does not come. One thread for all calls of a client, started by the first read; it ends with
    `close`, or when the watch is collected."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: dict[Any, float] = {}
        self._silent: weakref.WeakSet[Any] = weakref.WeakSet()
        self._stop = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        weakref.finalize(self, self._stop.set)

    def next_of(self, call: Iterator[T]) -> T | None:
        """The next message; None at the end. Errors: Silent, grpc.RpcError."""
        if self._thread is None:
            self._start()
        self._waiting[call] = time.monotonic()
        try:
            return next(call, None)
        except grpc.RpcError:
            if call in self._silent:
                raise Silent from None
            raise
        finally:
            self._waiting.pop(call, None)

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                arguments = (self._waiting, self._silent, self._stop, self._seconds)
                self._thread = threading.Thread(target=_watch, args=arguments, name="treadle-client silence", daemon=True)
                self._thread.start()


def _watch(waiting: dict[Any, float], silent: weakref.WeakSet[Any], stop: threading.Event, seconds: float) -> None:
    while not stop.wait(seconds / _LOOKS):
        now = time.monotonic()
        # The copy is one step for other threads.
        for call, since in waiting.copy().items():
            if now - since > seconds:
                silent.add(call)
                call.cancel()
        call = None
