"""A session's history: every commit that its head has been at."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class SnapshotKind(StrEnum):
    """Who moved the head."""

    TURN = "TURN"
    EDIT = "EDIT"
    RESTORE = "RESTORE"
    IMPORT = "IMPORT"
    CHECKPOINT = "CHECKPOINT"
    FORK = "FORK"


@dataclass(frozen=True)
class NewSnapshot:
    """A commit that is about to become the session's head, and is in its mirror already."""

    kind: SnapshotKind
    commit: str
    parent: str
    """What its bundle stands on: for what goes on from the head, the head."""
    message: str = ""
    conversation: int | None = None
    """The number of the turn whose transcript goes with it; None for the one that the next turn begins with."""


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
    conversation: int = 0
    """The number of the turn whose transcript goes with it; 0 for none."""
    stored: bool = False
    """Whether the object store has it; then the three below say what is there."""
    key: str = ""
    sha256: str = ""
    size: int = 0
    created_at: datetime | None = None


@dataclass(frozen=True)
class SnapshotPage:
    """A page of snapshots, newest first; `next_token` is empty at the end."""

    snapshots: tuple[Snapshot, ...]
    next_token: str
