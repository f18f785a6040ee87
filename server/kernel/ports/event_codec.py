"""Port: the bytes of events. The kernel decides what is said; how it looks on the wire is not its business."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

from server.kernel.agent_request import Resolution
from server.kernel.code_host import PullRequest
from server.kernel.event import Chunk, Envelope, Fact
from server.kernel.history import NewFork
from server.kernel.model_use import ModelUse
from server.kernel.ports.egress import Access
from server.kernel.ports.launcher import Capability, WorkerExit
from server.kernel.ports.repositories import Diff, Skipped
from server.kernel.ports.turn_queue import Waiting
from server.kernel.push_refusal import PushRefusal
from server.kernel.session import SessionState
from server.kernel.turn import Turn
from server.kernel.user_input import UserInput


class EventCodec(Protocol):
    """Builds event bodies for facts that the server states, and seals bodies into chunks.

    `seal` appends the server's envelope to each body: fields that the server vouches for come last and so win over anything that a
    body might hold. A body is never changed.
    """

    def seal(
        self, envelope: Envelope, bodies: Sequence[bytes], *, first_seq: int, event_id_prefix: str, first_number: int, recorded_at: datetime
    ) -> Chunk:
        """One chunk of consecutive events; event i has the producer's key `event_id_prefix` + (`first_number` + i)."""
        ...

    def frame(self, events: bytes) -> bytes:
        """The stream frame that holds these joined chunks; built once and sent to every follower."""
        ...

    def session_updated(
        self,
        state: SessionState,
        *,
        title: str | None = None,
        branch: str | None = None,
        labels: Mapping[str, str] | None = None,
        waiting: Waiting | None = None,
    ) -> Fact:
        """The session's state, title, branch or labels changed, or where its `waiting` turn stands."""
        ...

    def user_input(self, input_id: str, text: str) -> Fact:
        """The user's words that a turn begins with."""
        ...

    def input_updated(self, told: UserInput) -> Fact:
        """What became of something that the user said (`UserInput.status`)."""
        ...

    def expiring(self, body: bytes, expires_at: datetime) -> bytes:
        """The body of an agent's request, telling when it expires."""
        ...

    def request_resolved(self, resolution: Resolution) -> Fact:
        """What became of an agent's request."""
        ...

    def turn_started(self, turn: Turn, *, input_id: str) -> Fact:
        """A turn began."""
        ...

    def worker_updated(self, worker_id: str, phase: str, *, launcher: Capability, worker_exit: WorkerExit | None = None) -> Fact:
        """`phase`: STARTING, READY, ADOPTED, EXITED or LOST."""
        ...

    def file_changed(self, diff: Diff, *, turn_total: bool = True) -> Fact:
        """What the turn changed in all, as Git sees it; or what somebody else has changed."""
        ...

    def git_updated(
        self,
        action: str,
        *,
        repository: str,
        branch: str = "",
        base_branch: str = "",
        sha: str = "",
        message: str = "",
        diff: Diff | None = None,
        skipped: Sequence[Skipped] = (),
        skipped_count: int = 0,
        refusal: PushRefusal | None = None,
    ) -> Fact:
        """`action`: CLONED, BRANCHED, COMMITTED, PUSHED, PUSH_FAILED (with its `refusal`) or SKIPPED."""
        ...

    def pull_request_updated(self, pull_request: PullRequest) -> Fact:
        """The pull request of the session's branch, as it is now."""
        ...

    def snapshot_added(self, turn: Turn) -> Fact:
        """The turn's snapshot is in the object store."""
        ...

    def session_forked(self, fork: NewFork) -> Fact:
        """A session began as a fork of another one."""
        ...

    def error(self, code: str, message: str, *, retryable: bool, fatal: bool, attempt: int = 0, provider_status: int = 0) -> Fact:
        """Something went wrong."""
        ...

    def usage_updated(self, use: ModelUse, *, tokens_left: int | None, micros_left: int | None) -> Fact:
        """What a request to a model used, and what is left of the tightest budgets."""
        ...

    def network_access(self, item_id: str, access: Access, *, count: int = 0) -> Fact:
        """A connection that the agent asked for, or with `count` the sum of several."""
        ...

    def turn_completed(self, turn: Turn) -> Fact:
        """The turn's last event; `turn` is in its terminal state."""
        ...
