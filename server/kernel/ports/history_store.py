"""Port: the history of sessions, and what is said in their logs between turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from server.kernel.event import Chunk
from server.kernel.history import Answer, LogEnd, Moment, NewFork, NewSnapshot, Snapshot, SnapshotPage
from server.kernel.identity import Principal
from server.kernel.push_refusal import PushOutcome
from server.kernel.session import NewSession, Session
from server.kernel.turn import Turn

if TYPE_CHECKING:
    from server.kernel.retention import Policy

Seal = Callable[[int, int], Chunk]
"""(first_seq, epoch) -> the chunk that begins there. Called within the transaction, so it does nothing else."""


class HistoryStore(Protocol):
    """Between turns nobody drives a session's log; whoever has the session locked may append to it, and the epoch stays.

    A turn's snapshot appears with the step that sets its commit (TurnStore.commit), and follows its snapshot_* fields.

    Errors: StoreUnavailable, and those named at each method.
    """

    async def record(
        self, principal: Principal, session_id: str, *, head: str, snapshot: NewSnapshot, seal: Seal, end: LogEnd | None = None
    ) -> Snapshot:
        """Move the session's head from `head` to the snapshot's commit, in one transaction: the session, the snapshot with the next number
        (not stored yet), what the session's agent remembers, and the events. Who knows where the log ended says it, and where it still does
        that is the sooner way. When it is there already, made from this head by the same
        call, that is found and nothing is written. Errors: SessionNotFound, TurnActive, HeadMoved; AlreadyAnswered for the request of its
        `answer`."""
        ...

    async def answer(self, principal: Principal, session_id: str, answer: Answer) -> bool:
        """Remember what was answered to a request that made no snapshot. False, and nothing, when it was answered before."""
        ...

    async def answered(self, principal: Principal, session_id: str, request_id: str) -> Answer | None:
        """What was answered to a request, if anything."""
        ...

    async def forget_answers(self, older: timedelta) -> None:
        """Of all tenants."""
        ...

    async def moment(self, principal: Principal, session_id: str, at: str) -> Moment:
        """The session after the turn that `at` is the id of, which has ended; at the snapshot that it is the number or the commit of (the
        first seven digits do, if no other has them); `0` for what it began from; now, when it is `head` or empty.
        Errors: SessionNotFound, SnapshotNotFound, SnapshotExpired."""
        ...

    async def fork(
        self, principal: Principal, session: NewSession, fork: NewFork, *, request_id: str, request_digest: str, seal: Seal
    ) -> bool:
        """Make a session that goes on from there, in one transaction: it, its first snapshot (if there is a commit), what its agent
        remembers, and the events. False, and nothing, when the request_id has made a session already."""
        ...

    async def note(
        self, principal: Principal, session_id: str, seal: Seal, *, branch: str | None = None, push: PushOutcome | None = None
    ) -> None:
        """Append events, and with `push` remember how it ended, and the session's new `branch`, if it has one. Errors: SessionNotFound,
        TurnActive."""
        ...

    async def list(self, principal: Principal, session_id: str, *, page_size: int, page_token: str) -> SnapshotPage:
        """Newest first. Errors: SessionNotFound; InvalidField for a page_token that it did not make."""
        ...

    async def get(self, principal: Principal, session_id: str, *, number: int = 0, turn_id: str = "") -> Snapshot:
        """The one with this number, or that this turn made. Errors: SessionNotFound, SnapshotNotFound."""
        ...

    async def chain(self, tenant_id: str, session_id: str, commit: str) -> Sequence[Snapshot]:
        """What the commit is restored from, oldest first: each one's parent is the one before, the first one's is the remote's (or ""), and
        the last is the newest snapshot of `commit`, or one that is stored. Empty when the session has none of it."""
        ...

    async def newest(self, tenant_id: str, session_id: str) -> Snapshot | None:
        """What the session's head is at, if a snapshot made it."""
        ...

    async def checkpoint(self, turn: Turn) -> Snapshot | None:
        """The newest checkpoint of a turn, if it has one."""
        ...

    async def stored_checkpoints(self, turn: Turn) -> Sequence[Snapshot]:
        """All that the object store has of a turn, newest first."""
        ...

    async def pending(self, *, limit: int, after: Snapshot | None = None) -> Sequence[Snapshot]:
        """Of all tenants, those that are not stored yet, oldest first; those behind `after`, when given. Without those of turns that have
        not ended: these store them by themselves, but for their checkpoints."""
        ...

    async def aged(self, policy: Policy, *, limit: int, claimed_seconds: float) -> Sequence[Session]:
        """Claim some of the sessions that have stored snapshots which are older than the policy keeps them, or so many that their chain may
        be too long. For so long nobody else gets them."""
        ...

    async def waiting(self, policy: Policy, *, claimed_seconds: float) -> int:
        """How many sessions have such old snapshots, and are not claimed."""
        ...

    async def shelf(self, session: Session, policy: Policy) -> tuple[Sequence[Snapshot], frozenset[int]]:
        """What there is of a session, but for what has expired, oldest first; and the numbers of those that are too old. The session's
        head, what is not stored, and what something not stored stands on are never too old; nor is anything of a running turn."""
        ...

    async def announce(self, session: Session, key: str) -> None:
        """An object of the session is about to be put, under a key that was never used: in an hour it is gone again, unless `rebase` names
        it. Nothing happens to one that a snapshot is stored as."""
        ...

    async def rebase(self, old: Snapshot, made: Snapshot) -> bool:
        """Let the snapshot be stored as `made` says, and doom the object that it was stored as. False, and nothing, when it is not as `old`
        any more, or `made` was announced too long ago."""
        ...

    async def expire(self, session: Session, numbers: Sequence[int]) -> int:
        """Those of the snapshots that nothing stands on, and that are not the head, are stored no more: their objects are doomed. Returns
        how many."""
        ...

    async def stored_bytes(self, principal: Principal) -> int:
        """What the snapshots of the caller's tenant take in the object store."""
        ...

    async def doomed(self, *, limit: int, after: str) -> Sequence[str]:
        """Prefixes of keys whose objects nothing needs any more, those behind `after`, in order; never the key of a stored snapshot. A
        session that is deleted leaves its own, in the same transaction."""
        ...

    async def gone(self, prefix: str, *, again_seconds: float) -> None:
        """There are no such objects any more. The first time the prefix comes up again later, for what was being stored meanwhile."""
        ...

    async def stored(self, snapshot: Snapshot, *, key: str, sha256: str, size: int) -> None:
        """The object store has it, which a turn's own fields say too; when no snapshot waits for it, its object is doomed. Not for a
        turn that has not ended: a step of its own does this."""
        ...

    async def lost(self, snapshot: Snapshot) -> None:
        """Nobody is expected to store it any more; if somebody does after all, it is stored. Nothing happens to one that is stored."""
        ...
