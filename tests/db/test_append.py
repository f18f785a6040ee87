"""Append and read: gapless, once, fenced, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from uuid import uuid4

import asyncpg
import pytest
from support.logs import chunk, run_of, start_worker
from support.postgres import database_settings

from server.db.stores import Stores, open_postgres
from server.embedded.postgres_home import DatabaseUrls
from server.kernel.errors import StoreRejected, StoreUnavailable
from server.kernel.event import Chunk
from server.kernel.identity import Principal
from server.kernel.ports.turn_store import Claimed, Reset
from server.kernel.turn import TurnState


@pytest.fixture
async def worker(stores: Stores, alice: Principal) -> Claimed:
    """A turn whose worker may append from 1."""
    return await start_worker(stores, alice)


@pytest.fixture
async def owner(database: DatabaseUrls) -> AsyncIterator[asyncpg.Connection]:
    """Somebody who can look at everything and end connections."""
    connection = await asyncpg.connect(database.owner)
    yield connection
    await connection.close()


async def log_of(stores: Stores, session_id: str) -> bytes:
    """The whole log, checked to be without gaps."""
    data, last = b"", 0
    while page := await stores.events.read(session_id, last, max_bytes=4_000):
        for part in page:
            assert part.first_seq == last + 1
            data, last = data + part.data, part.last_seq
    return data


async def test_runs_are_appended_in_order(stores: Stores, worker: Claimed) -> None:
    assert await stores.events.append([run_of(worker, 1, 3)]) == {worker.session.id}
    assert await stores.events.append([run_of(worker, 4, 4)]) == {worker.session.id}
    head = await stores.events.head(worker.session.id)
    assert head is not None
    assert (head.next_seq, head.worker_seq) == (5, 4)
    assert await log_of(stores, worker.session.id) == chunk(1, 4).data


async def test_a_repeated_or_skipping_run_leaves_no_trace(stores: Stores, worker: Claimed) -> None:
    await stores.events.append([run_of(worker, 1, 3)])
    for wrong in (
        run_of(worker, 1, 3),
        run_of(worker, 3, 5),
        run_of(worker, 5, 6),
        run_of(worker, 4, 5, first_worker_seq=3),
        run_of(worker, 4, 5, first_worker_seq=5),
        run_of(worker, 5, 5, first_worker_seq=4),
        replace(run_of(worker, 4, 5), epoch=2),
        replace(run_of(worker, 4, 5), epoch=0),
        replace(run_of(worker, 4, 5), attempt=2),
        replace(run_of(worker, 4, 5), turn_id=str(uuid4())),
        replace(run_of(worker, 4, 5), session_id=str(uuid4())),
    ):
        assert await stores.events.append([wrong]) == frozenset()
    assert await stores.events.append([run_of(worker, 4, 5)]) == {worker.session.id}
    assert await log_of(stores, worker.session.id) == chunk(1, 5).data


async def test_a_fenced_run_does_not_hold_up_the_others(stores: Stores, alice: Principal) -> None:
    workers = [await start_worker(stores, alice) for _ in range(5)]
    runs = [run_of(each, 1, 2) for each in workers]
    runs[2] = replace(runs[2], epoch=7)
    applied = await stores.events.append(runs)
    assert applied == {each.session.id for index, each in enumerate(workers) if index != 2}
    for index, each in enumerate(workers):
        assert await log_of(stores, each.session.id) == (b"" if index == 2 else chunk(1, 2).data)


async def test_a_run_that_breaks_a_constraint_applies_none_and_says_so(stores: Stores, alice: Principal) -> None:
    good, bad = await start_worker(stores, alice), await start_worker(stores, alice)
    with pytest.raises(StoreRejected):
        await stores.events.append([run_of(good, 1, 2), replace(run_of(bad, 1, 1), chunk=Chunk(1, 0, b""))])
    assert await log_of(stores, good.session.id) == b""
    assert await stores.events.append([run_of(good, 1, 2)]) == {good.session.id}


async def test_server_events_stand_between_the_workers_and_leave_its_watermark(stores: Stores, worker: Claimed) -> None:
    await stores.events.append([run_of(worker, 1, 2)])
    await stores.turns.commit(worker.turn, expected_version=2, epoch=1, chunk=chunk(3, 3))
    assert await stores.events.append([run_of(worker, 4, 5, first_worker_seq=3)]) == {worker.session.id}
    assert await log_of(stores, worker.session.id) == chunk(1, 5).data


async def test_a_new_attempt_begins_at_one_and_shuts_out_the_old_worker(stores: Stores, worker: Claimed) -> None:
    await stores.events.append([run_of(worker, 1, 2)])
    turn = replace(worker.turn, state=TurnState.RUNNING, attempt=2)
    await stores.turns.commit(turn, expected_version=2, epoch=1, chunk=None, reset=Reset(turn.id, 2))
    assert await stores.events.append([run_of(worker, 3, 4)]) == frozenset()
    second = replace(worker, turn=turn)
    assert await stores.events.append([run_of(second, 3, 4, first_worker_seq=1)]) == {worker.session.id}


async def test_a_read_may_begin_at_every_event(stores: Stores, worker: Claimed) -> None:
    first, sizes = 1, (1, 2, 7, 1, 30)
    for count, size in zip(sizes, (20, 127, 128, 5_000, 300), strict=True):
        await stores.events.append([run_of(worker, first, first + count - 1, size=size)])
        first += count
    whole = await stores.events.read(worker.session.id, 0, max_bytes=1_000_000)
    for after in range(first):
        chunks = await stores.events.read(worker.session.id, after, max_bytes=1_000_000)
        assert [seq for part in chunks for seq in range(part.first_seq, part.last_seq + 1)] == list(range(after + 1, first))
        assert b"".join(part.data for part in chunks) == b"".join(part.after(after).data for part in whole if part.last_seq > after)
    assert await stores.events.read(worker.session.id, first + 5, max_bytes=10) == []
    assert await stores.events.read(str(uuid4()), 0, max_bytes=10) == []
    assert await stores.events.head(str(uuid4())) is None


async def test_a_page_holds_about_as_many_bytes_as_asked_for_and_at_least_one_chunk(stores: Stores, worker: Claimed) -> None:
    for seq in range(1, 11):
        await stores.events.append([run_of(worker, seq, seq, size=997)])
    assert [len(await stores.events.read(worker.session.id, 0, max_bytes=size)) for size in (1, 999, 2_500, 100_000)] == [1, 1, 3, 10]


@pytest.mark.parametrize("damage", ["data || '\\x00'", "substring(data FOR octet_length(data) - 1)", "'\\x08' || data", "'\\x0aff'"])
async def test_a_damaged_chunk_is_never_cut(stores: Stores, worker: Claimed, owner: asyncpg.Connection, damage: str) -> None:
    await stores.events.append([run_of(worker, 1, 3)])
    await owner.execute(f"UPDATE event_chunks SET data = {damage}")
    with pytest.raises(StoreRejected):
        await stores.events.read(worker.session.id, 1, max_bytes=1_000)


async def test_a_connection_that_dies_at_any_moment_makes_no_gap_and_no_double(
    stores: Stores, worker: Claimed, owner: asyncpg.Connection
) -> None:
    """200 appends, the journal's backend ended beside each of them; the outcome is asked of the head, as the journal does."""
    dice = random.Random(7)
    lost = seq = 0
    while seq < 200:
        append = asyncio.ensure_future(stores.events.append([run_of(worker, seq + 1, seq + 1)]))
        for _ in range(dice.randrange(12)):
            await asyncio.sleep(0)
        await owner.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'treadle journal'")
        try:
            assert await append == {worker.session.id}
            seq += 1
        except StoreUnavailable:
            lost += 1
            head = await stores.events.head(worker.session.id)
            assert head is not None
            assert head.worker_seq in (seq, seq + 1)
            seq = head.worker_seq
    assert lost > 20
    assert await log_of(stores, worker.session.id) == chunk(1, 200).data


async def test_a_connection_that_dies_inside_the_statement_wrote_nothing(
    stores: Stores, worker: Claimed, owner: asyncpg.Connection
) -> None:
    async with owner.transaction():
        await owner.execute("SELECT FROM session_heads FOR UPDATE")
        append = asyncio.ensure_future(stores.events.append([run_of(worker, 1, 1)]))
        async with asyncio.timeout(10):
            ended = None
            while not ended:
                ended = await owner.fetchval(
                    "SELECT bool_or(pg_terminate_backend(pid)) FROM pg_stat_activity"
                    " WHERE application_name = 'treadle journal' AND wait_event_type = 'Lock'"
                )
                await owner.execute("SELECT pg_stat_clear_snapshot()")
        with pytest.raises(StoreUnavailable):
            await append
    assert await stores.events.append([run_of(worker, 1, 1)]) == {worker.session.id}


async def test_writers_with_opposite_orders_never_deadlock(stores: Stores, alice: Principal, database: DatabaseUrls) -> None:
    workers = [await start_worker(stores, alice) for _ in range(6)]
    position = {each.session.id: 1 for each in workers}
    async with open_postgres(database_settings(database)) as other:
        for _ in range(60):
            runs = [run_of(each, position[each.session.id], position[each.session.id]) for each in workers]
            first, second, _ = await asyncio.gather(
                stores.events.append(runs),
                other.events.append(list(reversed(runs))),
                stores.turns.renew("r1", [run.session_id for run in reversed(runs)], lease_seconds=60),
            )
            assert first | second == set(position)
            assert not first & second
            position = {session_id: seq + 1 for session_id, seq in position.items()}
    for each in workers:
        assert await log_of(stores, each.session.id) == chunk(1, 60).data
