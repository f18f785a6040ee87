"""Port: turns, leases, and the state changes that write events in the same transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from server.kernel.agent_request import AgentRequest
from server.kernel.code_host import PullRequest
from server.kernel.event import Chunk
from server.kernel.history import NewSnapshot
from server.kernel.identity import Principal
from server.kernel.ports.usage_store import UseRecord
from server.kernel.push_refusal import PushOutcome
from server.kernel.session import NewSession, Session
from server.kernel.turn import Turn


class Leftover(StrEnum):
    """What a worker's files and processes are to whoever finds them."""

    NEEDED = "NEEDED"
    """Its turn goes on, here or at a replica that shares the directory; one that does not will end the turn without them."""
    KEPT = "KEPT"
    """The turn ended without its workspace being imported, or with a checkpoint while this machine was lost: nobody shall write there any
    more, and the work is still to be published."""
    NOBODYS = "NOBODYS"
    """The turn ended with its workspace imported, or does not exist."""


@dataclass(frozen=True)
class NewTurn:
    """What is needed to start a turn. Already validated."""

    id: str
    request_id: str
    request_digest: str
    provider: str
    model: str
    prompt: str
    trace_parent: str = ""
    """The trace context of the request."""
    approvals: str = ""
    input_id: str = ""


@dataclass(frozen=True)
class Claimed:
    """A turn that this replica drives now, with its session, its owner and the epoch under which to write.

    `session.last_seq` is the end of the log as it was claimed: under the epoch nobody else has written since."""

    turn: Turn
    session: Session
    owner: Principal
    epoch: int

    @property
    def begun(self) -> bool:
        """Whether the log has the turn's first events; one that waited for its place has."""
        return self.session.last_seq > self.turn.start_seq


@dataclass(frozen=True)
class Ended:
    """A turn that ended, with its session and its owner as they are now."""

    turn: Turn
    session: Session
    owner: Principal


@dataclass(frozen=True)
class Reset:
    """A new worker may append from worker_seq 1: set with the step that starts an attempt."""

    turn_id: str
    attempt: int


@dataclass(frozen=True)
class Opened:
    """A request that the step's first event asks."""

    request: AgentRequest
    expires_at: datetime | None


@dataclass(frozen=True)
class Changes:
    """What a step changes besides: rows that its events tell of, written with them or not at all."""

    opened: Opened | None = None
    told_inputs: Sequence[tuple[str, int]] = ()
    """Inputs, each with the version that is told of."""
    taken_inputs: Sequence[str] = ()
    """Inputs that the turn's agent has."""
    told_requests: Sequence[str] = ()
    """Requests whose outcome is told."""
    told_pull_request: PullRequest | None = None
    """What is told of the pull request of the session's branch."""
    snapshot: NewSnapshot | None = None
    """A commit that the session's head moves to, besides that of the turn."""
    checkpoint: NewSnapshot | None = None
    """What the turn's work was at some time; the session's head stays where it is."""


class TurnStore(Protocol):
    """Turns and who drives them.

    Leases: at most one replica drives a session at a time. A lease ends by the database's clock only. `epoch` grows by one with
    each take-over (also a replica's own, after a restart), and every write names the epoch it was made under.

    Errors: StoreUnavailable, and those named at each method.
    """

    async def find_request(self, principal: Principal, request_id: str) -> Turn | None:
        """The caller's turn with this request_id, whatever its state."""
        ...

    async def start(
        self,
        principal: Principal,
        session: NewSession | str,
        turn: NewTurn,
        *,
        replica: str,
        lease_seconds: float,
    ) -> Claimed | Turn:
        """In one transaction: make the session (or load it by id, ownership checked), insert the turn as QUEUED with the next
        number and start_seq (the end of the log as it is now), and take the session's lease for `replica` (epoch + 1). No event is
        written yet; the caller's first `commit` does. The session's state becomes QUEUED, and `provider` and `model` are remembered
        in it. Without a `replica`, or where the user or the tenant has as many running turns as it may, the turn waits (TurnQueue), and
        nobody has a lease: then only the turn is returned. Errors: SessionNotFound, TurnActive; RequestIdReused when the non-empty
        request_id exists already (a race; the caller looks it up again); TooManyTurns when it had to wait, and too many do already."""
        ...

    async def commit(
        self,
        turn: Turn,
        *,
        expected_version: int,
        epoch: int,
        chunk: Chunk | None,
        session_title: str | None = None,
        session_branch: str | None = None,
        session_head_commit: str | None = None,
        session_push: PushOutcome | None = None,
        reset: Reset | None = None,
        uses: Sequence[UseRecord] = (),
        transcript: bytes = b"",
        worker_seq: int = 0,
        changes: Changes | None = None,
    ) -> None:
        """One durable step, in one transaction: all of the turn's mutable fields (with version expected_version + 1), the session's
        state (Turn.session_state) and given fields, the events of `chunk`, whose first_seq must be the head's next_seq, and `uses`.
        With a `worker_seq` the first event is the worker's with this number, and the head's worker_seq, which must be the one before,
        becomes it. `changes` are made with it. A terminal state holds the session's queue, unless it is COMPLETED.
        `reset` opens the head for the worker of a new attempt (worker_seq 0); a terminal state closes it (turn_id ""), and sets the
        turn's `end_seq` to the chunk's last_seq and `ended_at`. The interrupt_reason of the row is never overwritten with "".
        A non-empty `transcript` replaces the one that the turn's provider left in an earlier turn of the session.
        Errors: Fenced when epoch, version, next_seq or worker_seq are not the expected ones; StoreRejected when `opened` has the id of
        a request that was asked before (nothing was written then)."""
        ...

    async def request_interrupt(self, principal: Principal, session_id: str, turn_id: str, *, reason: str) -> Turn | None:
        """Mark the active turn (only `turn_id`, when given) to be interrupted, without touching its version. Returns it, or None
        when none is active. Errors: SessionNotFound."""
        ...

    async def transcript(self, session_id: str, provider: str) -> bytes:
        """What the provider's newest turn in the session left with its `commit`; empty for nothing. Errors: StoreRejected when it is
        damaged."""
        ...

    async def interrupts(self, replica: str) -> Sequence[tuple[str, str]]:
        """(turn id, reason) of this replica's turns that are to be interrupted; for requests that reached another replica."""
        ...

    async def claim(self, replica: str, *, lease_seconds: float, restart: bool, limit: int) -> list[Claimed]:
        """Take over active turns whose lease has expired, and with `restart` also all those of this replica itself (a restart
        with the same identity need not wait). Each gets epoch + 1. Turns that another replica claims at the same time are left."""
        ...

    async def renew(self, replica: str, session_ids: Sequence[str], *, lease_seconds: float) -> frozenset[str]:
        """Extend leases; returns the sessions that are still this replica's."""
        ...

    async def repository_url(self, session_id: str) -> str:
        """The URL of a session's repository, for work that no caller asked for. Errors: SessionNotFound."""
        ...

    async def leftover(self, turn_id: str) -> Leftover:
        """What becomes of what a turn's worker left."""
        ...

    async def ended(self, turn_id: str) -> Ended | None:
        """A turn that has ended; None when it has not, or there is none."""
        ...

    async def rescued(self, turn_id: str) -> None:
        """Of an ended turn: what its worker left was imported after all, and is nobody's now."""
        ...
