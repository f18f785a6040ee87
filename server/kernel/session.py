"""Sessions: one conversation about one repository and one branch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from server.kernel.code_host import PullRequest
from server.kernel.ports.repositories import Repository
from server.kernel.push_refusal import PushRefusal


class SessionState(StrEnum):
    """What a session is doing; it follows from its newest turn."""

    QUEUED = "QUEUED"
    PROVISIONING = "PROVISIONING"
    RUNNING = "RUNNING"
    AWAITING_USER = "AWAITING_USER"
    AWAITING_APPROVAL = "AWAITING_APPROVAL"
    IDLE = "IDLE"
    FAILED = "FAILED"


@dataclass(frozen=True)
class Session:
    """One row of `sessions`, with the end of its log."""

    id: str
    tenant_id: str
    owner_id: str
    title: str
    repository_url: str
    base_branch: str
    branch: str
    """Empty until the first turn made it."""
    branch_requested: str
    """The name that the caller asked for; empty to have one made."""
    state: SessionState
    provider: str
    model: str
    head_commit: str
    """Newest commit of the session's branch that Treadle knows; empty before the first."""
    pushed_commit: str = ""
    """What the session's branch on the remote is known to hold; empty before the first push."""
    push_refusal: PushRefusal | None = None
    push_message: str = ""
    """Why the last push failed; None and empty when it did not."""
    pull_request: PullRequest | None = None
    """The newest one from its branch, as far as its owner was shown one."""
    labels: Mapping[str, str] = field(default_factory=dict)
    allowed_hosts: tuple[str, ...] = ()
    """Where its workers may connect to (server/kernel/egress.py)."""
    version: int = 1
    last_seq: int = 0
    epoch: int = 0
    """Who may write to its log changes with it: each turn that starts adds one."""
    active_turn_id: str = ""
    open_requests: tuple[str, ...] = ()
    """Ids of the agent's requests that wait for an answer, oldest first."""
    waiting_inputs: int = 0
    """Inputs in the queue, without those that interrupt."""
    stored_bytes: int = 0
    """What its snapshots take in the object store; 0 where it was not asked for."""
    told_place: tuple[int, str] | None = None
    """(`ahead`, reason), as the log of a turn that waits for a place told last (server/kernel/ports/turn_queue.py)."""
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def repository(self) -> Repository:
        """The remote repository, as the session's owner uses it."""
        return Repository(self.tenant_id, self.owner_id, self.repository_url)

    @property
    def unpushed_commit(self) -> str:
        """The newest commit, while the remote does not have it."""
        return "" if self.head_commit == self.pushed_commit else self.head_commit


@dataclass(frozen=True)
class NewSession:
    """What is needed to make a session. Already validated."""

    id: str
    repository_url: str
    base_branch: str
    branch_requested: str = ""
    title: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    allowed_hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class SessionPage:
    """A page of sessions, newest first; `next_token` is empty at the end."""

    sessions: tuple[Session, ...]
    next_token: str
