"""Events as the kernel sees them: a kind, an envelope and an opaque, already validated body."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

MAX_EVENT_BYTES = 256 * 1024
"""No event is larger, on any path."""


@dataclass(frozen=True)
class Fact:
    """Something the server itself states. `body` is a serialised event with only its body (and item) set."""

    kind: str
    body: bytes


@dataclass(frozen=True)
class WorkerBatch:
    """Consecutive events of one worker; event i has worker_seq `first_worker_seq + i`.

    `bodies` are serialised, stripped of everything that a worker may not say, each at most `MAX_EVENT_BYTES`.
    """

    first_worker_seq: int
    kinds: Sequence[str]
    bodies: Sequence[bytes]

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


@dataclass(frozen=True)
class Chunk:
    """Consecutive events of one session as they are stored and sent.

    `data` is the concatenation of the events, each as field 1 of an EventBatch (tag, length, bytes): chunks join by
    concatenation, and a joined run is a complete EventBatch. Nothing is ever re-encoded.
    """

    first_seq: int
    last_seq: int
    data: bytes


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
