"""The write side of one session's log, held by the replica that drives the session."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

from server.kernel.errors import WorkerProtocolBroken
from server.kernel.event import Envelope, WorkerBatch
from server.kernel.journal.feed import Feed
from server.kernel.wakeup import Wakeup

MAX_PENDING_EVENTS = 8192
MAX_PENDING_BYTES = 4 * 1024 * 1024
"""What may wait for the next commit per session; then the worker is not read from (JOURNAL.md, recipe 14)."""


class SessionLog:
    """Where a driven session's log stands, and what waits to be written to it.

    `busy` is true while a statement that touches this log is under way: the writer's or a step's, never both.
    """

    def __init__(self, session_id: str, *, epoch: int, next_seq: int, server: Envelope, feed: Feed) -> None:
        self.session_id = session_id
        self.epoch = epoch
        self.next_seq = next_seq
        self.server_envelope = server
        self.worker_envelope = server
        self.feed = feed
        self.pending: deque[WorkerBatch] = deque()
        self.pending_events = 0
        self.pending_bytes = 0
        self.durable_worker_seq = 0
        self.submitted_worker_seq = 0
        self.failure: BaseException | None = None
        self.busy = False
        self._changes = Wakeup()

    def open_attempt(self, envelope: Envelope, *, worker_seq: int) -> None:
        """Accept events of a worker after `worker_seq`."""
        self.worker_envelope = envelope
        self.durable_worker_seq = self.submitted_worker_seq = worker_seq

    def step_envelope(self, turn_id: str) -> Envelope:
        """The server's envelope for events of a turn (or of none)."""
        return replace(self.server_envelope, turn_id=turn_id)

    def accept(self, batch: WorkerBatch) -> WorkerBatch | None:
        """Check a batch against the worker's sequence; None for one that is known already. Errors: WorkerProtocolBroken."""
        known = self.submitted_worker_seq - batch.first_worker_seq + 1
        if known < 0:
            raise WorkerProtocolBroken(f"worker_seq jumped from {self.submitted_worker_seq} to {batch.first_worker_seq}")
        if known >= len(batch.bodies):
            return None
        if known:
            batch = WorkerBatch(batch.first_worker_seq + known, batch.kinds[known:], batch.bodies[known:])
        self.submitted_worker_seq = batch.last_worker_seq
        return batch

    def put(self, batch: WorkerBatch) -> None:
        """Queue a batch for the writer."""
        self.pending.append(batch)
        self.pending_events += len(batch.bodies)
        self.pending_bytes += sum(map(len, batch.bodies))

    def take(self, limit: int) -> WorkerBatch | None:
        """Merge what waits into one batch of about `limit` events; whole batches only."""
        if not self.pending:
            return None
        first = self.pending[0].first_worker_seq
        kinds: list[str] = []
        bodies: list[bytes] = []
        while self.pending and (not bodies or len(bodies) + len(self.pending[0].bodies) <= limit):
            batch = self.pending.popleft()
            kinds.extend(batch.kinds)
            bodies.extend(batch.bodies)
        self.pending_events -= len(bodies)
        self.pending_bytes -= sum(map(len, bodies))
        return WorkerBatch(first, kinds, bodies)

    @property
    def full(self) -> bool:
        """Whether no more may be queued now."""
        return self.pending_events >= MAX_PENDING_EVENTS or self.pending_bytes >= MAX_PENDING_BYTES

    def changed(self) -> None:
        """Wake everybody who waits for this log."""
        self._changes.notify()

    def fail(self, failure: BaseException) -> None:
        """Nothing more can be written under this epoch; everybody who waits hears why."""
        self.failure = failure
        self.pending.clear()
        self.pending_events = self.pending_bytes = 0
        self.changed()

    async def room(self) -> None:
        """Wait until a batch may be queued."""
        await self._until(lambda: not self.full)

    async def durable(self, worker_seq: int) -> int:
        """Wait until more than `worker_seq` is durable; returns how much is. Errors: why the log failed."""
        await self._until(lambda: self.durable_worker_seq > worker_seq)
        return self.durable_worker_seq

    async def drained(self) -> None:
        """Wait until everything that was submitted is durable."""
        await self._until(lambda: self.durable_worker_seq >= self.submitted_worker_seq)

    async def acquire(self) -> None:
        """Wait until no statement touches this log, and take it."""
        await self._until(lambda: not self.busy)
        self.busy = True

    def release(self) -> None:
        """Let the next statement go."""
        self.busy = False
        self.changed()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while self.failure is None and not condition():
            await self._changes.after(self._changes.count)
        if self.failure is not None:
            raise self.failure
