"""Turns: one request carried out, as a pure state machine.

The state says where a turn is; the other fields say what has been done, so that a new server process can go on after `kill -9` at
any point. `version` is compared and counted up with each change.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from server.kernel.session import SessionState


class TurnState(StrEnum):
    """Where a turn is."""

    QUEUED = "QUEUED"
    PREPARING = "PREPARING"
    RUNNING = "RUNNING"
    FINALIZING = "FINALIZING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    INTERRUPTED = "INTERRUPTED"

    @property
    def terminal(self) -> bool:
        """True when nothing about the turn can change any more."""
        return self in TERMINAL


TERMINAL = frozenset({TurnState.COMPLETED, TurnState.FAILED, TurnState.INTERRUPTED})

TRANSITIONS: dict[TurnState, frozenset[TurnState]] = {
    TurnState.QUEUED: frozenset({TurnState.PREPARING, TurnState.FINALIZING}),
    TurnState.PREPARING: frozenset({TurnState.RUNNING, TurnState.FINALIZING}),
    TurnState.RUNNING: frozenset({TurnState.FINALIZING}),
    TurnState.FINALIZING: TERMINAL,
    TurnState.COMPLETED: frozenset(),
    TurnState.FAILED: frozenset(),
    TurnState.INTERRUPTED: frozenset(),
}

SESSION_STATE: dict[TurnState, SessionState] = {
    TurnState.QUEUED: SessionState.QUEUED,
    TurnState.PREPARING: SessionState.PROVISIONING,
    TurnState.RUNNING: SessionState.RUNNING,
    TurnState.FINALIZING: SessionState.RUNNING,
    TurnState.COMPLETED: SessionState.IDLE,
    TurnState.INTERRUPTED: SessionState.IDLE,
    TurnState.FAILED: SessionState.FAILED,
}
"""The session's state follows from its turn's, unless the agent waits for somebody (`Turn.session_state`)."""


class TurnCode(StrEnum):
    """Why a turn failed; the names of the proto enum without its prefix."""

    NONE = ""
    WORKER_LOST = "WORKER_LOST"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    OUT_OF_DISK = "OUT_OF_DISK"
    TIMEOUT = "TIMEOUT"
    PROVIDER = "PROVIDER"
    REPOSITORY = "REPOSITORY"
    WORKSPACE = "WORKSPACE"
    BUDGET = "BUDGET"
    PROTOCOL = "PROTOCOL"
    LAUNCH = "LAUNCH"
    INTERNAL = "INTERNAL"


@dataclass(frozen=True)
class Outcome:
    """How the agent's part of a turn ended; decided before the work is published."""

    status: TurnState
    """COMPLETED, FAILED or INTERRUPTED."""
    code: TurnCode = TurnCode.NONE
    message: str = ""
    native_stop_reason: str = ""


class Awaiting(StrEnum):
    """Whom the agent waits for."""

    NOBODY = ""
    USER = "USER"
    APPROVAL = "APPROVAL"


@dataclass(frozen=True)
class Turn:
    """One row of `turns`."""

    id: str
    tenant_id: str
    session_id: str
    owner_id: str
    number: int
    """From 1, within the session."""
    request_id: str
    request_digest: str
    """SHA-256 of what was asked, to tell a repeated request from a reused id."""
    provider: str
    model: str
    prompt: str
    trace_parent: str = ""
    """The trace context of the request that asked for it; empty when that was not traced."""
    approvals: str = ""
    """Empty, or `ASK`: the agent asks before it acts."""
    input_id: str = ""
    """The queued input that it was started with; empty when ExecuteSession started it."""
    state: TurnState = TurnState.QUEUED
    version: int = 1
    # -- progress, in the order in which it is made
    base_commit: str = ""
    """The commit that the workspace is built from; empty until the repository was fetched."""
    branch: str = ""
    """The session's branch; set in the same step that made it on the remote."""
    attempt: int = 0
    """The number of the current worker; 0 before the first."""
    interrupt_reason: str = ""
    """Why the turn shall stop; empty when it shall not."""
    awaiting: Awaiting = Awaiting.NOBODY
    waiting_since: datetime | None = None
    """Since when the agent waits for somebody; None while it does not."""
    waited_seconds: float = 0.0
    """For how long it has waited before. The turn's time limit does not run while it waits."""
    network_bytes: int = 0
    """What its connections have sent and received, as far as the log tells of them."""
    outcome: Outcome | None = None
    imported: bool = False
    """True once the workspace was read back (also when nothing had changed)."""
    commit: str = ""
    """The commit that holds the turn's work; empty when nothing had changed."""
    commit_message: str = ""
    push_attempted: bool = False
    pushed: bool = False
    """True when the remote's branch holds the session's work."""
    snapshot_state: str = ""
    """Empty, `PENDING` or `STORED`."""
    snapshot_key: str = ""
    snapshot_sha256: str = ""
    snapshot_size: int = 0
    created_at: datetime | None = None
    started_at: datetime | None = None
    """When the agent was started; the turn's time limit counts from here."""
    concluded_at: datetime | None = None
    """When the agent's part was over; None in a turn of an earlier version."""
    ended_at: datetime | None = None
    start_seq: int = 0
    """The seq of the last event before the turn's first."""
    end_seq: int = 0
    """The seq of the terminal event; 0 until there is one."""

    @property
    def session_state(self) -> SessionState:
        """What the turn makes of its session."""
        if self.state is TurnState.RUNNING and self.awaiting:
            return SessionState(f"AWAITING_{self.awaiting}")
        return SESSION_STATE[self.state]

    def worked_seconds(self, at: datetime) -> float:
        """How long the agent has worked, without the time in which it waited for people."""
        if self.started_at is None:
            return 0.0
        return ((self.waiting_since or at) - self.started_at).total_seconds() - self.waited_seconds

    def waiting_for(self, awaiting: Awaiting, at: datetime) -> Turn:
        """The turn with its agent waiting for somebody from `at` on, or for nobody any more."""
        if awaiting and self.waiting_since is None:
            return replace(self, awaiting=awaiting, waiting_since=at)
        if not awaiting and self.waiting_since is not None:
            waited = self.waited_seconds + max(0.0, (at - self.waiting_since).total_seconds())
            return replace(self, awaiting=awaiting, waiting_since=None, waited_seconds=waited)
        return replace(self, awaiting=awaiting)


def can_advance(old: TurnState, new: TurnState) -> bool:
    """Whether a turn may go from `old` to `new`; staying in a state that is not terminal is allowed (progress within it)."""
    if old == new:
        return not old.terminal
    return new in TRANSITIONS[old]
