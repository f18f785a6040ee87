"""The journal's face: open a log to write to it, append, commit a step, follow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime

from server.kernel.errors import Fenced, KernelError, SequenceAhead, SessionNotFound, StoreUnavailable
from server.kernel.event import Chunk, Envelope, Fact, Head, WorkerBatch
from server.kernel.journal.feed import Feed
from server.kernel.journal.follow import Follower, Frame
from server.kernel.journal.log import SessionLog
from server.kernel.journal.writer import RETRY_SECONDS, GroupWriter, Mark
from server.kernel.ports.event_codec import EventCodec
from server.kernel.ports.event_store import EventStore
from server.kernel.ports.turn_store import Changes, Claimed, Reset, TurnStore
from server.kernel.ports.usage_store import UseRecord
from server.kernel.push_refusal import PushOutcome
from server.kernel.turn import Turn

WATCH_SECONDS = 1.0


class Journal:
    """All event logs, as this process sees them."""

    def __init__(self, events: EventStore, turns: TurnStore, codec: EventCodec, *, mark: Mark, heartbeat_seconds: float) -> None:
        self._events = events
        self._turns = turns
        self._codec = codec
        self._writer = GroupWriter(events, codec, mark)
        self._mark = mark
        self._heartbeat = heartbeat_seconds
        self._feeds: dict[str, Feed] = {}

    async def run(self) -> None:
        """The writer, and who looks at the logs of others; if it ends, the server must end."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._writer.run())
            group.create_task(self._watch())

    async def _watch(self) -> None:
        """For all followers together, one look a second at the logs that nobody drives here: another replica does, or their turns wait."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            watched = [session_id for session_id, feed in self._feeds.items() if feed.followers and not feed.driven]
            if not watched:
                continue
            try:
                tails = await self._events.tails(watched)
            except KernelError:
                continue
            for session_id in watched:
                if feed := self._feeds.get(session_id):
                    feed.seen_elsewhere(tails.get(session_id))

    # -- writing ------------------------------------------------------------------------------------------------------------

    def open(self, claimed: Claimed, *, server: Envelope) -> SessionLog:
        """Take the write side of a claimed session's log. If another replica has claimed it since, the first write finds that out."""
        session_id, next_seq = claimed.session.id, claimed.session.last_seq + 1
        feed = self._feed(session_id)
        log = SessionLog(session_id, epoch=claimed.epoch, next_seq=next_seq, server=server, feed=feed)
        feed.drive(log, next_seq, server.turn_id)
        return log

    def close(self, log: SessionLog) -> None:
        """Give the write side back. Followers go on from the store."""
        log.feed.release(log)
        self._drop(log.session_id)

    async def durable_worker_seq(self, session_id: str, turn_id: str, attempt: int) -> int:
        """The last worker_seq of an attempt that is stored; 0 when the head is at another one."""
        head = await self._events.head(session_id)
        if head is None or (head.turn_id, head.attempt) != (turn_id, attempt):
            return 0
        return head.worker_seq

    async def submit(self, log: SessionLog, batch: WorkerBatch) -> None:
        """Queue a worker's events; `log.durable` tells when they are stored. Errors: Fenced, WorkerProtocolBroken."""
        await self._writer.submit(log, batch)

    async def commit(
        self,
        log: SessionLog,
        turn: Turn,
        facts: Sequence[Fact],
        *,
        step: str,
        key: str = "",
        session_title: str | None = None,
        session_branch: str | None = None,
        session_head_commit: str | None = None,
        session_push: PushOutcome | None = None,
        reset: Reset | None = None,
        uses: Sequence[UseRecord] = (),
        transcript: bytes = b"",
        heard: WorkerBatch | None = None,
        changes: Changes | None = None,
        user_id: str = "",
    ) -> Turn:
        """One durable step: `turn` with its changes, `facts` (at least one) and `uses` in one transaction, tried until the store has said
        yes or no. `key` names the step in the events' ids, for steps that a turn may take more than once. `heard` is the worker's next
        event, which becomes durable with the step, before the facts; what came before it is durable already. The facts are the server's, or
        with `user_id` that user's. Returns the turn with its
        new version. Errors: Fenced, and those of TurnStore.commit."""
        if not facts and heard is None:
            raise ValueError("a step tells at least one fact: the log's position is how its outcome is found out")
        await log.acquire()
        try:
            chunk = self._seal(log, turn.id, key or step, facts, heard=heard, user_id=user_id)
            new = _with_version(turn, chunk)

            async def write() -> None:
                await self._turns.commit(
                    new,
                    expected_version=turn.version,
                    epoch=log.epoch,
                    chunk=chunk,
                    session_title=session_title,
                    session_branch=session_branch,
                    session_head_commit=session_head_commit,
                    session_push=session_push,
                    reset=reset,
                    uses=uses,
                    transcript=transcript,
                    worker_seq=heard.last_worker_seq if heard else 0,
                    changes=changes,
                )

            await self._settled(log, chunk, step, write)
            if new.state.terminal:
                log.feed.turn_ended()
            if heard is not None:
                log.heard(heard)
            self._publish(log, chunk)
        finally:
            log.release()
            self._writer.wake(log)
        return new

    async def _settled(self, log: SessionLog, chunk: Chunk, step: str, write: Callable[[], Awaitable[None]]) -> None:
        """Run a step's transaction; after a lost connection ask the log whether it went through, and repeat it if not."""
        attempt = 0
        while True:
            self._mark(f"{step}.commit.before")
            try:
                await write()
            except StoreUnavailable:
                if await self._has(log, chunk):
                    break
                await asyncio.sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])
                attempt += 1
            except Fenced:
                if attempt and await self._has(log, chunk):
                    break
                raise
            else:
                break
        self._mark(f"{step}.commit.after")

    async def _has(self, log: SessionLog, chunk: Chunk) -> bool:
        """Whether the log holds the chunk: only this replica writes under the epoch, so the head's position tells."""
        attempt = 0
        while True:
            try:
                head = await self._events.head(log.session_id)
            except StoreUnavailable:
                await asyncio.sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])
                attempt += 1
                continue
            if head is None or head.epoch != log.epoch:
                raise Fenced(log.session_id, log.epoch)
            return head.next_seq > chunk.last_seq

    def _seal(
        self, log: SessionLog, turn_id: str, key: str, facts: Sequence[Fact], *, heard: WorkerBatch | None = None, user_id: str = ""
    ) -> Chunk:
        now, first_seq, said = datetime.now(UTC), log.next_seq, b""
        if heard is not None:
            said = self._writer.seal(log, heard, now).data
            first_seq += len(heard.bodies)
        envelope = log.step_envelope(turn_id)
        told = self._codec.seal(
            replace(envelope, actor_kind="USER", actor_id=user_id, on_behalf_of="") if user_id else envelope,
            [fact.body for fact in facts],
            first_seq=first_seq,
            event_id_prefix=f"{turn_id or log.session_id}/{key}/",
            first_number=1,
            recorded_at=now,
        )
        return Chunk(log.next_seq, told.last_seq, said + told.data)

    def _publish(self, log: SessionLog, chunk: Chunk) -> None:
        log.next_seq = chunk.last_seq + 1
        log.feed.publish(chunk)

    async def has(self, session_id: str, chunk: Chunk) -> bool:
        """Whether the log holds exactly these events there. Errors: StoreUnavailable."""
        found = await self._events.read(session_id, chunk.first_seq - 1, max_bytes=1)
        return bool(found) and found[0] == chunk

    def look_again(self, session_id: str) -> None:
        """Something was written to a log that nobody drives, or the session was deleted: its followers here look now."""
        feed = self._feeds.get(session_id)
        if feed is not None:
            feed.news.notify()

    # -- reading ------------------------------------------------------------------------------------------------------------

    async def follow(self, session_id: str, *, after_seq: int, live: bool, turn_id: str = "") -> AsyncGenerator[Frame, None]:
        """Replay after `after_seq`, then follow to the end of `turn_id` (or until no turn is active).
        The caller has checked that the session is the reader's. Errors: SessionNotFound, SequenceAhead, StoreUnavailable."""
        head = await self._events.head(session_id)
        if head is None:
            raise SessionNotFound(session_id)
        if after_seq >= head.next_seq:
            raise SequenceAhead(after_seq, head.next_seq - 1)
        return self._frames(head, after_seq, live=live, turn_id=turn_id)

    async def _frames(self, head: Head, after_seq: int, *, live: bool, turn_id: str) -> AsyncGenerator[Frame, None]:
        with self._followed(head.session_id) as feed:
            follower = Follower(
                self._events, self._codec, feed, head.session_id, after_seq=after_seq, turn_id=turn_id, heartbeat_seconds=self._heartbeat
            )
            async with aclosing(follower.frames(head, live=live)) as frames:
                async for frame in frames:
                    yield frame

    async def page(self, session_id: str, *, after_seq: int, limit: int, max_bytes: int) -> tuple[bytes, int]:
        """Up to `limit` events after `after_seq`, joined, and the last seq of the log. Errors: as for `follow`."""
        head = await self._events.head(session_id)
        if head is None:
            raise SessionNotFound(session_id)
        last = head.next_seq - 1
        if after_seq > last:
            raise SequenceAhead(after_seq, last)
        chunks = await self._events.read(session_id, after_seq, max_bytes=max_bytes)
        goal = after_seq + limit
        return b"".join(chunk.up_to(goal).data for chunk in chunks if chunk.first_seq <= goal), last

    @contextmanager
    def _followed(self, session_id: str) -> Iterator[Feed]:
        feed = self._feed(session_id)
        feed.followers += 1
        try:
            yield feed
        finally:
            feed.followers -= 1
            self._drop(session_id)

    def _feed(self, session_id: str) -> Feed:
        return self._feeds.setdefault(session_id, Feed(self._codec.frame))

    def _drop(self, session_id: str) -> None:
        feed = self._feeds.get(session_id)
        if feed is not None and not feed.driven and not feed.followers:
            del self._feeds[session_id]


def _with_version(turn: Turn, chunk: Chunk) -> Turn:
    return replace(turn, version=turn.version + 1, end_seq=chunk.last_seq if turn.state.terminal else 0)
