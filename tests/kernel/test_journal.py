"""The journal on a real Postgres: what is appended is what followers see, gapless, whatever happens in between."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

import asyncpg
import pytest

from server.api.event_codec import ProtobufEventCodec
from server.db.stores import Stores
from server.embedded.postgres_home import DatabaseUrls
from server.kernel.errors import Fenced, SequenceAhead, WorkerProtocolBroken
from server.kernel.event import Envelope, WorkerBatch
from server.kernel.identity import Principal
from server.kernel.ids import new_id
from server.kernel.journal import Closed, Events, Journal, SessionLog, Synced
from server.kernel.ports.event_store import EventStore
from server.kernel.ports.turn_store import Claimed, NewTurn, Reset
from server.kernel.session import NewSession, SessionState
from server.kernel.turn import Outcome, TurnState
from server.kernel.wakeup import Wakeup
from treadle.session.v1 import event_pb2 as pb
from treadle.session.v1 import session_service_pb2
from treadle.worker.v1 import worker_event_pb2

CODEC = ProtobufEventCodec()


def say(text: str) -> bytes:
    return worker_event_pb2.WorkerEvent(message=pb.Message(parts=[pb.Part(text=text)])).SerializeToString()


def batch(first: int, *texts: str) -> WorkerBatch:
    return WorkerBatch(first, ["message"] * len(texts), [say(text) for text in texts])


@asynccontextmanager
async def running(stores: Stores, mark: Callable[[str], None] = lambda _: None, heartbeat: float = 15.0) -> AsyncIterator[Journal]:
    journal = Journal(stores.events, stores.turns, CODEC, mark=mark, heartbeat_seconds=heartbeat)
    writer = asyncio.create_task(journal.run())
    try:
        yield journal
    finally:
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)


@pytest.fixture
async def journal(stores: Stores) -> AsyncIterator[Journal]:
    async with running(stores) as journal:
        yield journal


class Story:
    """A claimed turn whose worker may speak."""

    def __init__(self, journal: Journal, log: SessionLog, claimed: Claimed) -> None:
        self.journal, self.log, self.turn = journal, log, claimed.turn
        self.session_id = claimed.turn.session_id

    async def step(self, name: str, state: TurnState, **changes: object) -> None:
        reset = changes.pop("reset", None)
        facts = [CODEC.session_updated(SessionState.RUNNING)]
        if state.terminal:
            facts.append(CODEC.turn_completed(replace(self.turn, state=state, outcome=Outcome(state))))
        turn = replace(self.turn, state=state, **changes)
        self.turn = await self.journal.commit(self.log, turn, facts, step=name, reset=reset)  # type: ignore[arg-type]

    async def run(self) -> None:
        await self.step("admit", TurnState.PREPARING)
        await self.step("assign", TurnState.RUNNING, attempt=1, reset=Reset(self.turn.id, 1))
        envelope = Envelope(self.session_id, self.turn.id, 1, self.log.epoch, "AGENT", "replay")
        self.log.open_attempt(envelope, worker_seq=0)

    async def end(self) -> None:
        await self.log.drained()
        await self.step("conclude", TurnState.FINALIZING, outcome=Outcome(TurnState.COMPLETED))
        await self.step("end", TurnState.COMPLETED)
        self.journal.close(self.log)


async def begin(stores: Stores, journal: Journal, owner: Principal, replica: str = "r1") -> Story:
    turn = NewTurn(new_id(), "", "", "replay", "", "do it")
    session = NewSession(new_id(), "https://example.org/a/b", "main")
    claimed = await stores.turns.start(owner, session, turn, replica=replica, lease_seconds=15)
    envelope = Envelope(claimed.turn.session_id, claimed.turn.id, 0, claimed.epoch, "SERVER", replica)
    log = journal.open(claimed, server=envelope)
    return Story(journal, log, claimed)


@pytest.fixture
async def story(stores: Stores, journal: Journal, alice: Principal) -> Story:
    story = await begin(stores, journal, alice)
    await story.run()
    return story


async def read(journal: Journal, session_id: str, after: int = 0, *, live: bool = False, turn_id: str = "") -> list[pb.Event]:
    events: list[pb.Event] = []
    async with aclosing(await journal.follow(session_id, after_seq=after, live=live, turn_id=turn_id)) as frames:
        async for frame in frames:
            if isinstance(frame, Events):
                batch = session_service_pb2.ResumeResponse.FromString(frame.frame).events.events
                assert batch[-1].seq == frame.last_seq
                events.extend(batch)
    assert [event.seq for event in events] == list(range(after + 1, after + 1 + len(events)))
    return events


async def test_what_is_submitted_is_durable_gapless_and_in_order(journal: Journal, story: Story) -> None:
    for first in range(1, 200, 7):
        await journal.submit(story.log, batch(first, *[f"m{n}" for n in range(first, first + 7)]))
    await story.log.drained()
    events = await read(journal, story.session_id)
    texts = [event.message.parts[0].text for event in events if event.attempt]
    assert texts == [f"m{n}" for n in range(1, 204)]


async def test_replay_begins_behind_any_event(journal: Journal, story: Story) -> None:
    await journal.submit(story.log, batch(1, *[f"m{n}" for n in range(40)]))
    await story.log.drained()
    await story.end()
    whole = await read(journal, story.session_id)
    for after in range(len(whole)):
        assert await read(journal, story.session_id, after) == whole[after:]


async def test_beyond_the_end_is_refused(journal: Journal, story: Story) -> None:
    last = story.log.next_seq - 1
    with pytest.raises(SequenceAhead):
        await journal.follow(story.session_id, after_seq=last + 1, live=True)
    assert await read(journal, story.session_id, last) == []


async def test_followers_at_any_place_see_the_same_as_the_log(journal: Journal, story: Story) -> None:
    followers = [asyncio.create_task(read(journal, story.session_id, after, live=True)) for after in (0, 1, 2) for _ in range(20)]
    for number in range(1, 301):
        await journal.submit(story.log, batch(number, f"m{number}"))
        if number % 50 == 0:
            await story.log.drained()
            followers.append(asyncio.create_task(read(journal, story.session_id, story.log.next_seq - 1, live=True)))
    await story.end()
    whole = await read(journal, story.session_id)
    for events in await asyncio.gather(*followers):
        assert events == whole[-len(events) :]


async def test_a_stream_of_a_turn_ends_with_it_although_the_next_begins(
    stores: Stores, journal: Journal, story: Story, alice: Principal
) -> None:
    follower = asyncio.create_task(read(journal, story.session_id, live=True, turn_id=story.turn.id))
    await journal.submit(story.log, batch(1, "one"))
    await story.end()
    again = NewTurn(new_id(), "", "", "replay", "", "more")
    claimed = await stores.turns.start(alice, story.session_id, again, replica="r1", lease_seconds=15)
    envelope = Envelope(story.session_id, claimed.turn.id, 0, claimed.epoch, "SERVER", "r1")
    second = Story(journal, journal.open(claimed, server=envelope), claimed)
    await second.run()
    events = await follower
    assert events[-1].WhichOneof("body") == "turn_completed"
    assert {event.turn_id for event in events} == {story.turn.id}
    # Asked again, after the fact, it is the same.
    assert await read(journal, story.session_id, live=True, turn_id=story.turn.id) == events


async def test_frames_are_synced_once_and_closed_at_the_end(journal: Journal, story: Story) -> None:
    await journal.submit(story.log, batch(1, "one", "two"))
    await story.log.drained()
    frames = []
    async with aclosing(await journal.follow(story.session_id, after_seq=0, live=True)) as stream:
        async for frame in stream:
            frames.append(frame)
            if isinstance(frame, Synced):
                assert frame.watermark_seq == story.log.next_seq - 1
                await story.end()
    assert [type(frame) for frame in frames if not isinstance(frame, Events)] == [Synced, Closed]
    assert frames[-1] == Closed(story.turn.end_seq, "IDLE")


async def test_silence_is_told(stores: Stores, alice: Principal) -> None:
    async with running(stores, heartbeat=0.02) as journal:
        story = await begin(stores, journal, alice)
        await story.run()
        kinds = []
        async with aclosing(await journal.follow(story.session_id, after_seq=0, live=True)) as stream:
            async for frame in stream:
                kinds.append(type(frame).__name__)
                if kinds.count("Idle") == 3:
                    break
        assert kinds.count("Synced") == 1


@pytest.mark.parametrize("first", [1, 2, 3, 5])
async def test_a_worker_that_repeats_or_skips_events_breaks_the_protocol(journal: Journal, story: Story, first: int) -> None:
    await journal.submit(story.log, batch(1, "a", "b", "c"))
    with pytest.raises(WorkerProtocolBroken):
        await journal.submit(story.log, batch(first, "x", "y", "z"))
    await story.log.drained()
    texts = [event.message.parts[0].text for event in await read(journal, story.session_id) if event.attempt]
    assert texts == ["a", "b", "c"]


async def test_no_chunk_and_no_frame_is_too_large_for_a_client_with_default_options(stores: Stores, journal: Journal, story: Story) -> None:
    """A log whose chunks had grown while the database stood still could never be read by such a client."""
    text = "x" * 20_000
    story.log.busy = True  # as while a statement is under way
    for first in range(1, 181, 10):
        await journal.submit(story.log, batch(first, *[text] * 10))
    story.log.release()
    journal._writer.wake(story.log)
    await story.log.drained()
    chunks = await stores.events.read(story.session_id, 0, max_bytes=1 << 30)
    assert max(len(chunk.data) for chunk in chunks) < 300_000
    frames: list[int] = []
    for live in (False, True):
        async with aclosing(await journal.follow(story.session_id, after_seq=0, live=live)) as stream:
            async for frame in stream:
                if isinstance(frame, Events):
                    frames.append(len(frame.frame))
                    if frame.last_seq == chunks[-1].last_seq:
                        break
    assert max(frames) < 1_500_000
    assert sum(frames) > 2 * 180 * 20_000


async def test_a_taken_over_session_cannot_be_written_any_more(stores: Stores, journal: Journal, story: Story, alice: Principal) -> None:
    other = await begin(stores, journal, alice)
    await other.run()
    await stores.turns.claim("r1", lease_seconds=15, restart=True, limit=10)
    before = await read(journal, story.session_id)
    await journal.submit(story.log, batch(1, "late"))
    with pytest.raises(Fenced):
        await story.log.drained()
    with pytest.raises(Fenced):
        await story.step("late", TurnState.RUNNING)
    assert await read(journal, story.session_id) == before


async def test_a_fenced_session_does_not_stop_the_others(stores: Stores, journal: Journal, alice: Principal) -> None:
    stories = [await begin(stores, journal, alice, replica=f"r{n}") for n in range(4)]
    for story in stories:
        await story.run()
    await stores.turns.claim("r2", lease_seconds=15, restart=True, limit=10)
    for story in stories:
        await journal.submit(story.log, batch(1, "x", "y"))
    for number, story in enumerate(stories):
        if number == 2:
            with pytest.raises(Fenced):
                await story.log.drained()
        else:
            await story.log.drained()
            assert len(await read(journal, story.session_id)) == 4


async def hit(admin: asyncpg.Connection, kill: str) -> int:
    """Until there was a connection to lose: those of the last time may still be on their way back."""
    async with asyncio.timeout(30):
        while not (killed := await admin.fetchval(kill)):
            await asyncio.sleep(0)
    return int(killed)


async def test_lost_connections_lose_and_double_nothing(stores: Stores, database: DatabaseUrls, alice: Principal) -> None:
    admin = await asyncpg.connect(database.owner)
    kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
    killed = 0
    try:
        async with running(stores) as journal:
            story = await begin(stores, journal, alice)
            await story.run()
            for number in range(1, 401):
                await journal.submit(story.log, batch(number, f"m{number}"))
                if number % 8 == 0:
                    killed += await hit(admin, kill)
                await asyncio.sleep(0)
            await story.end()
            texts = [event.message.parts[0].text for event in await read(journal, story.session_id) if event.attempt]
    finally:
        await admin.close()
    assert texts == [f"m{n}" for n in range(1, 401)]
    assert killed >= 50


class Counted:
    """An event store that counts what it is asked."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self.asked: Counter[str] = Counter()
        self.changed = Wakeup()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def counted(*arguments: Any, **named: Any) -> Any:
            self.asked[name] += 1
            self.changed.notify()
            return await method(*arguments, **named)

        return counted

    async def until(self, name: str, times: int) -> None:
        async with asyncio.timeout(20):
            while self.asked[name] < times:
                await self.changed.after(self.changed.count)


async def test_all_followers_of_logs_that_others_write_cost_one_look(stores: Stores, story: Story) -> None:
    counted = Counted(stores.events)
    async with running(replace(stores, events=counted)) as elsewhere:  # type: ignore[arg-type]
        readers = [asyncio.create_task(read(elsewhere, story.session_id, live=True)) for _ in range(30)]
        # The first look is news to all of them.
        await counted.until("tails", 2)
        before = counted.asked.copy()
        await counted.until("tails", before["tails"] + 2)
        assert counted.asked["head"] - before["head"] <= 60
        await counted.until("tails", before["tails"] + 4)
        assert counted.asked["head"] - before["head"] <= 60
        await story.journal.submit(story.log, batch(1, "one"))
        await story.end()
        whole = await read(story.journal, story.session_id)
        assert await asyncio.gather(*readers) == [whole] * 30
