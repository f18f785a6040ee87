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
CHUNK_BYTES = 256 * 1024
"""What may wait for the next commit per session; then the worker is not read from (JOURNAL.md, recipe 14). A chunk is sent whole, and
gRPC clients with default options take messages of 4 MiB: one holds about `CHUNK_BYTES` of bodies, and their envelopes."""


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

    def check(self, batch: WorkerBatch) -> None:
        """A batch must go on where the last one ended: a worker is asked for what is not there yet, so one that repeats events is
        another worker, or a liar. Errors: WorkerProtocolBroken."""
        if batch.first_worker_seq != self.submitted_worker_seq + 1:
            raise WorkerProtocolBroken(f"after worker_seq {self.submitted_worker_seq} comes {batch.first_worker_seq}")

    def heard(self, batch: WorkerBatch) -> None:
        """A step has made the worker's next events durable."""
        self.submitted_worker_seq = self.durable_worker_seq = batch.last_worker_seq

    def put(self, batch: WorkerBatch) -> None:
        """Queue a batch for the writer. Errors: WorkerProtocolBroken, as for `check`."""
        self.check(batch)
        self.submitted_worker_seq = batch.last_worker_seq
        self.pending.append(batch)
        self.pending_events += len(batch.bodies)
        self.pending_bytes += sum(map(len, batch.bodies))

    def take(self, limit: int) -> WorkerBatch | None:
        """Merge what waits into one batch of about `limit` events and `CHUNK_BYTES`; whole batches only."""
        if not self.pending:
            return None
        first = self.pending[0].first_worker_seq
        kinds: list[str] = []
        bodies: list[bytes] = []
        size = 0
        while self.pending:
            batch = self.pending[0]
            more = sum(map(len, batch.bodies))
            if bodies and (len(bodies) + len(batch.bodies) > limit or size + more > CHUNK_BYTES):
                break
            self.pending.popleft()
            kinds.extend(batch.kinds)
            bodies.extend(batch.bodies)
            size += more
        self.pending_events -= len(bodies)
        self.pending_bytes -= size
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
