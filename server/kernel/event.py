"""Events as the kernel sees them: a kind, an envelope and an opaque, already validated body."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

MAX_EVENT_BYTES = 256 * 1024
"""No event is larger, on any path."""

EVENT_TAG = 0x0A
"""Field 1, length-delimited: how each event begins inside a chunk."""


@dataclass(frozen=True)
class Fact:
    """Something the server itself states. `body` is a serialised event with only its body (and item) set."""

    kind: str
    body: bytes


TextId = tuple[str, int]
"""Which text a content_delta continues: item and channel."""


@dataclass(frozen=True)
class WorkerBatch:
    """Consecutive events of one worker; event i has worker_seq `first_worker_seq + i`.

    `bodies` are serialised, stripped of everything that a worker may not say, each at most `MAX_EVENT_BYTES`.
    """

    first_worker_seq: int
    kinds: Sequence[str]
    bodies: Sequence[bytes]
    deltas: Mapping[TextId, Sequence[tuple[int, bytes]]] = field(default_factory=dict)
    """The texts that events continue: for each the events' indexes and what they add (UTF-8, as it stands in the body), in order.
    Secrets are looked for across these."""

    @property
    def last_worker_seq(self) -> int:
        """The worker_seq of the last event; one less than the first for an empty batch."""
        return self.first_worker_seq + len(self.bodies) - 1


@dataclass(frozen=True)
class Envelope:
    """What the server vouches for, constant over the events of one attempt of one turn."""

    session_id: str
    turn_id: str
    attempt: int
    epoch: int
    actor_kind: str
    """`USER`, `AGENT`, `WORKER`, `SERVER` or `POLICY`."""
    actor_id: str
    on_behalf_of: str = ""
    origin: str = "NATIVE"
    trace_parent: str = ""


@dataclass(frozen=True)
class Chunk:
    """Consecutive events of one session as they are stored and sent.

    `data` is the concatenation of the events, each as field 1 of an EventBatch (tag, length, bytes): chunks join by
    concatenation, and a joined run is a complete EventBatch. Nothing is ever re-encoded.
    """

    first_seq: int
    last_seq: int
    data: bytes

    def after(self, seq: int) -> Chunk:
        """The part behind event `seq`, which must be one of the chunk's. Errors: ValueError when the bytes are not well-formed."""
        if seq < self.first_seq:
            return self
        return Chunk(seq + 1, self.last_seq, self.data[self._end_of(seq) :])

    def up_to(self, seq: int) -> Chunk:
        """The part up to and with event `seq`, which must be one of the chunk's. Errors: ValueError, as for `after`."""
        if seq >= self.last_seq:
            return self
        return Chunk(self.first_seq, seq, self.data[: self._end_of(seq)])

    def _end_of(self, seq: int) -> int:
        offset = 0
        for _ in range(self.first_seq, seq + 1):
            offset = _next_event(self.data, offset)
        return offset


def _next_event(data: bytes, offset: int) -> int:
    """Where the event that begins at `offset` ends: one tag byte, a varint length, the event."""
    if offset >= len(data) or data[offset] != EVENT_TAG:
        raise ValueError("chunk is not well-formed")
    offset += 1
    length = shift = 0
    while True:
        byte = data[offset]
        offset += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            return offset + length
        shift += 7


@dataclass(frozen=True)
class Run:
    """A chunk to append for a worker, with everything the store compares before it writes."""

    session_id: str
    turn_id: str
    attempt: int
    epoch: int
    first_worker_seq: int
    chunk: Chunk
    recorded_at: datetime

    @property
    def count(self) -> int:
        """How many events."""
        return self.chunk.last_seq - self.chunk.first_seq + 1

    @property
    def last_worker_seq(self) -> int:
        """The worker_seq of the last event."""
        return self.first_worker_seq + self.count - 1


@dataclass(frozen=True)
class Tail:
    """What changes of a session when its followers have something to look at."""

    epoch: int
    next_seq: int
    active_turn_id: str
    input_due: bool


@dataclass(frozen=True)
class Head:
    """Where a session's log stands."""

    session_id: str
    epoch: int
    next_seq: int
    turn_id: str
    """The turn whose worker may append; empty for none."""
    attempt: int
    worker_seq: int
    """The last worker_seq of that attempt that is durable; 0 for none."""
    active_turn_id: str = ""
    """The session's turn that has not ended; empty for none."""
    session_state: str = "IDLE"
    """The session's state, as in SessionState."""
    input_due: bool = False
    """Whether a queued input is about to start the next turn."""
    open_requests: tuple[str, ...] = ()
    """The agent's requests that wait for an answer; the log tells of each of them."""
