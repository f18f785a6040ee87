"""One stream of events over any number of connections, as a state machine without any input or output: the blocking and the async
client drive the same one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from treadle.session.v1 import session_service_pb2 as pb
from treadle.session.v1.event_pb2 import Event as EventMessage
from treadle_client.errors import CallFailed, SequenceBroken, Unavailable, unreachable
from treadle_client.event import Event
from treadle_client.retry import Backoff, Retry

Request = pb.ExecuteSessionRequest | pb.ResumeRequest
Frame = pb.ExecuteSessionResponse | pb.ResumeResponse
OnConnection = Callable[[Unavailable | None], None]
OnSynced = Callable[[Sequence[str]], None]


class Following:
    """Loop: `pop` until it gives nothing; then, unless `done`, read a frame of a call made with `request` and give it to `take`. When
    the call ends in any way, tell `cut`, wait, and make another.

    Each event is given once and in order: a call asks for what is behind the last one that was taken, and calls are made only
    when all that was taken has been given.
    """

    def __init__(self, first: Request, retry: Retry, on_connection: OnConnection | None = None, on_synced: OnSynced | None = None) -> None:
        self.session_id = first.session_id
        self.turn_id = ""
        """The turn that is followed; empty while it is not known, and when a session is followed as a whole."""
        self.last_seq = first.after_seq if isinstance(first, pb.ResumeRequest) else 0
        """The last event that was given."""
        self.done = False
        self._first = first
        self._taken = self.last_seq
        # A request for a turn in a session that is there begins somewhere; every other place is known.
        self._anywhere = isinstance(first, pb.ExecuteSessionRequest) and bool(first.session_id)
        self._ready: deque[EventMessage] = deque()
        self._retry = retry
        self._backoff: Backoff | None = None
        self._on_connection = on_connection
        self._on_synced = on_synced
        self._lost = False

    def pop(self) -> Event | None:
        """The next event, if one is here."""
        if not self._ready:
            return None
        event = self._ready.popleft()
        self.last_seq = event.seq
        return Event(event)

    def request(self) -> Request:
        """What to ask for now. A request for a turn is repeated as it is until there is an event: its request_id starts nothing twice."""
        if self._backoff is None:
            self._backoff = Backoff(self._retry)
        if isinstance(self._first, pb.ExecuteSessionRequest):
            if not self._taken:
                return self._first
            return pb.ResumeRequest(session_id=self.session_id, after_seq=self._taken)
        again = pb.ResumeRequest()
        again.CopyFrom(self._first)
        again.after_seq = self._taken
        return again

    def take(self, frame: Frame) -> None:
        """What came. Errors: SequenceBroken."""
        backoff = self._waits
        backoff.limit_seconds = self._retry.away_seconds
        kind = frame.WhichOneof("frame")
        if kind == "started":
            self.session_id = frame.started.session_id
            self.turn_id = self.turn_id or frame.started.turn_id
            return
        if kind in ("events", "heartbeat"):
            backoff.progress()
        else:
            backoff.alive()
        self._found()
        if kind == "events":
            self._take(frame.events.events)
        elif kind == "synced" and self._on_synced is not None:
            # All of the past has been given: a frame is read only then.
            self._on_synced(frame.synced.open_request_ids)
        elif kind == "closed":
            # The server says where it ended, so nothing can be missing at the end either.
            self._expect(self._taken, frame.closed.final_seq)
            self.done = True

    def cut(self, failure: CallFailed | None) -> float:
        """The call ended, with a failure or as if it were complete. Seconds to wait before the next. Errors: the failure, when it
        is final.

        Also behind a turn's end only the server knows whether a next turn follows: what waits may have been queued before the place where
        this stream began. A session in which no turn is active is answered at once."""
        cause = failure or unreachable("the stream ended early")
        if cause.reason:
            # Whoever gives a reason is there.
            self._waits.limit_seconds = self._retry.away_seconds
        delay = self._waits.after(cause)
        if not self._lost and self._on_connection is not None and isinstance(cause, Unavailable):
            self._lost = True
            self._on_connection(cause)
        return delay

    @property
    def _waits(self) -> Backoff:
        if self._backoff is None:
            raise RuntimeError("nothing was asked for yet")
        return self._backoff

    def _take(self, events: Iterable[EventMessage]) -> None:
        run: list[EventMessage] = []
        taken, anywhere = self._taken, self._anywhere
        for event in events:
            if not anywhere:
                self._expect(event.seq, taken + 1)
            taken, anywhere = event.seq, False
            run.append(event)
            if self.turn_id and event.turn_id == self.turn_id and event.HasField("turn_completed"):
                # The last of this turn. What follows belongs to the next, which nobody asked for here.
                self.done = True
                break
        self._taken, self._anywhere = taken, anywhere
        self._ready.extend(run)

    def _expect(self, got: int, expected: int) -> None:
        if got != expected:
            raise SequenceBroken(self.session_id, expected=expected, got=got)

    def _found(self) -> None:
        if self._lost and self._on_connection is not None:
            self._lost = False
            self._on_connection(None)
