"""A stream of events, for `for` loops."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import grpc

from treadle_client.errors import CallFailed, ClientClosed, failure_of, unreachable
from treadle_client.event import Event
from treadle_client.following import Following
from treadle_client.link import Link
from treadle_client.silence import Silent


class EventStream(Iterator[Event]):
    """Events, each once and in order, through any number of connections. Nothing is sent before the first is asked for.

    It ends with the turn (`execute`) or when no turn is active (`resume`). Errors while iterating: Unavailable when the server is away
    for too long (iterate again to try again; nothing is lost), SequenceBroken, ClientClosed, and what the server refuses.
    Several threads may take from one stream; each event goes to one of them.
    """

    def __init__(self, link: Link, following: Following) -> None:
        self._link = link
        self._following = following
        self._call: Any = None
        self._reading = threading.Lock()
        self._shut = threading.Event()
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

    def __next__(self) -> Event:
        with self._reading:
            while True:
                if self._shut.is_set():
                    raise self._shut_with or StopIteration
                if (event := self._following.pop()) is not None:
                    return event
                if self._following.done:
                    self._drop()
                    raise StopIteration
                self._read()

    def close(self) -> None:
        """End it; also while another thread waits for its next event. The turn goes on."""
        self.shut(None)

    def shut(self, error: ClientClosed | None) -> None:
        """For the client: end it, with an error for who still reads."""
        if not self._shut.is_set():
            self._shut_with = error
            self._shut.set()
        # Without the lock: the reader holds it while it waits for this call.
        call = self._call
        if call is not None:
            call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def _read(self) -> None:
        """One frame, or one end of a call and the wait after it."""
        failure: CallFailed | None = None
        try:
            if self._call is None:
                self._call = self._link.open(self._following.request())
                if self._shut.is_set():
                    self._call.cancel()
            frame = self._link.watch.next_of(self._call)
            if frame is not None:
                self._following.take(frame)
                return
        except grpc.RpcError as error:
            failure = failure_of(error)
            failure.__cause__ = error
        except Silent:
            failure = unreachable("the stream was silent for too long")
        except BaseException:
            # For example Ctrl-C in the middle of a read: what that read would have brought is asked for again.
            self._drop()
            raise
        self._drop()
        if not self._shut.is_set():
            self._shut.wait(self._following.cut(failure))

    def _drop(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None
