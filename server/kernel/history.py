"""A session's history: every commit that its head has been at, and what running turns were at."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from server.kernel.ports.trees import Change


class SnapshotKind(StrEnum):
    """Who moved the head, or that nobody did."""

    TURN = "TURN"
    EDIT = "EDIT"
    RESTORE = "RESTORE"
    IMPORT = "IMPORT"
    CHECKPOINT = "CHECKPOINT"
    """With a turn: its work while it ran; the head stayed. Without one: a merge with what others had pushed."""
    FORK = "FORK"


@dataclass(frozen=True)
class Moment:
    """A session as it was at some time: what a fork or a restore begins with."""

    commit: str
    """Empty before the first."""
    provider: str
    model: str
    conversation: int | None
    """The number of the turn whose transcript goes with it, if that is still kept."""
    turn_id: str = ""
    """Of the turn after which it is, where a turn was asked for."""
    snapshot: int = 0
    """The number of the snapshot after which it is, where one was asked for."""


@dataclass(frozen=True)
class Remembered:
    """What an agent of this provider goes on with: its transcript, which came from elsewhere."""

    provider: str
    transcript: bytes


@dataclass(frozen=True)
class LogEnd:
    """Where a session's log ended when somebody looked, and no turn ran."""

    next_seq: int
    epoch: int


class AlreadyAnswered(Exception):
    """The request was answered before; nothing was done."""


@dataclass(frozen=True)
class Answer:
    """What a caller who asked with a request_id is told, also when he asks again."""

    request_id: str
    digest: str
    """Tells a repeated request from another one under its id."""
    changes: tuple[Change | None, ...]
    commit: str = ""
    number: int = 0
    """As in Done of edits.py; of a new snapshot both are its own."""


@dataclass(frozen=True)
class NewSnapshot:
    """A commit that is about to become the session's head, and is in its mirror already."""

    kind: SnapshotKind
    commit: str
    parent: str
    """What its bundle stands on: for what goes on from the head, the head; for a turn's checkpoint, the one before or the turn's base."""
    message: str = ""
    answer: Answer | None = None
    """To the request that made it."""
    restored: Moment | None = None
    """The session goes on with what its agent remembered then, and with that agent."""
    remembered: Remembered | None = None
    """The session's agent goes on with this."""


@dataclass(frozen=True)
class NewFork:
    """Where a new session comes from. Its commit is in the mirror already."""

    parent_session_id: str
    moment: Moment
    base: str
    """What its first bundle stands on: the commit itself, when the remote has it."""


@dataclass(frozen=True)
class Snapshot:
    """One row of `snapshots`."""

    tenant_id: str
    session_id: str
    number: int
    """From 1, within the session."""
    owner_id: str
    kind: SnapshotKind
    commit: str
    parent: str
    message: str
    actor: str
    """The id of the user who made it, or for whom it was made."""
    turn_id: str = ""
    """The turn that made it; empty between turns."""
    conversation: int | None = None
    """The number of the turn whose transcript goes with it; 0 for what a fork began with, None for none."""
    stored: bool = False
    """Whether the object store has it; then the three below say what is there."""
    key: str = ""
    sha256: str = ""
    size: int = 0
    created_at: datetime | None = None
    expired: bool = False
    """Nothing is stored of it any more."""
    lost: bool = False
    """The disk that had it was gone before it was stored: it is where its commit was pushed to, or nowhere."""
    actor_name: str = ""
    """In a list, as the two below: the user's name."""
    current: bool = False
    """Whether the session's head is there."""
    pushed: bool = False
    """Whether the session's branch on the remote is known to hold it."""


@dataclass(frozen=True)
class SnapshotPage:
    """A page of snapshots, newest first; `next_token` is empty at the end."""

    snapshots: tuple[Snapshot, ...]
    next_token: str
