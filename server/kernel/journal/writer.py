"""Group commit: one task takes what waits, over all sessions, and appends it in one statement."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from server.kernel.errors import Fenced, KernelError, StoreRejected, StoreUnavailable, WorkerProtocolBroken
from server.kernel.event import Chunk, Run, WorkerBatch
from server.kernel.journal.log import SessionLog
from server.kernel.ports.event_codec import EventCodec
from server.kernel.ports.event_store import EventStore

GROUP_EVENTS = 2048
"""About how many events one statement carries (whole batches are not split)."""

RETRY_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Waits while the database is away; the last one repeats."""

MAX_REFUSALS = 5

Mark = Callable[[str], None]


class GroupWriter:
    """Writes worker batches. The same bytes are tried again until the store has said whether it has them."""

    def __init__(self, store: EventStore, codec: EventCodec, mark: Mark) -> None:
        self._store = store
        self._codec = codec
        self._mark = mark
        self._dirty: dict[str, SessionLog] = {}
        self._work = asyncio.Event()

    async def submit(self, log: SessionLog, batch: WorkerBatch) -> None:
        """Queue a batch; returns when it is queued, not when it is durable. Errors: Fenced, WorkerProtocolBroken."""
        await log.room()
        log.put(batch)
        self.wake(log)

    def wake(self, log: SessionLog) -> None:
        """Look at this log again."""
        if log.pending:
            self._dirty[log.session_id] = log
            self._work.set()

    async def run(self) -> None:
        """Write until cancelled. If this ends, the server must end: nothing would be written any more."""
        while True:
            await self._work.wait()
            self._work.clear()
            group = await self._take()
            try:
                if group:
                    await self._write(group)
            finally:
                for log, _ in group:
                    log.release()
                    self.wake(log)

    async def _take(self) -> list[tuple[SessionLog, Run]]:
        group: list[tuple[SessionLog, Run]] = []
        room = GROUP_EVENTS
        waiting, self._dirty = list(self._dirty.values()), {}
        share = max(64, GROUP_EVENTS // max(1, len(waiting)))
        for log in waiting:
            if log.busy or log.failure is not None:
                # A step holds the log: it wakes this writer when it lets go.
                continue
            if room <= 0:
                self.wake(log)
                continue
            batch = log.take(share)
            if batch is not None:
                log.busy = True
                room -= len(batch.bodies)
                group.append((log, self._seal(log, batch)))
                log.changed()
        return group

    def seal(self, log: SessionLog, batch: WorkerBatch, now: datetime) -> Chunk:
        """The worker's events as they stand at the log's end."""
        envelope = log.worker_envelope
        return self._codec.seal(
            envelope,
            batch.bodies,
            first_seq=log.next_seq,
            event_id_prefix=f"{envelope.turn_id}/{envelope.attempt}/",
            first_number=batch.first_worker_seq,
            recorded_at=now,
        )

    def _seal(self, log: SessionLog, batch: WorkerBatch) -> Run:
        now = datetime.now(UTC)
        envelope, chunk = log.worker_envelope, self.seal(log, batch, now)
        return Run(log.session_id, envelope.turn_id, envelope.attempt, log.epoch, batch.first_worker_seq, chunk, now)

    async def _write(self, group: list[tuple[SessionLog, Run]]) -> None:
        self._mark("journal.append.before")
        try:
            applied = await self._store.append([run for _, run in group])
        except KernelError:
            applied = frozenset()
        self._mark("journal.append.after")
        # One by one where the store did not say yes: one bad run must not stop the others for ever.
        for log, run in group:
            if run.session_id in applied or await self._settle(log, run):
                self._publish(log, run)

    async def _settle(self, log: SessionLog, run: Run) -> bool:
        """Find out what became of a run, and try again until that is clear. False when the log failed."""
        attempt = refusals = 0
        while refusals < MAX_REFUSALS:
            try:
                head = await self._store.head(run.session_id)
                if head is None or head.epoch != run.epoch:
                    log.fail(Fenced(run.session_id, run.epoch))
                    return False
                if (head.turn_id, head.attempt) == (run.turn_id, run.attempt) and head.worker_seq >= run.last_worker_seq:
                    return True
                if head.next_seq != run.chunk.first_seq or head.worker_seq != run.first_worker_seq - 1:
                    log.fail(WorkerProtocolBroken(f"log of session {run.session_id} does not continue at seq {run.chunk.first_seq}"))
                    return False
                if run.session_id in await self._store.append([run]):
                    return True
                refusals += 1
            except StoreUnavailable:
                await asyncio.sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])
                attempt += 1
            except KernelError as error:
                log.fail(error)
                return False
        log.fail(StoreRejected(f"seq {run.chunk.first_seq} of session {run.session_id} fits its head and is refused all the same"))
        return False

    def _publish(self, log: SessionLog, run: Run) -> None:
        log.next_seq = run.chunk.last_seq + 1
        log.durable_worker_seq = run.last_worker_seq
        log.feed.publish(run.chunk)
        log.changed()
