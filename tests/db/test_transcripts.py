"""What agents remember is kept with the step that ends their part, one per agent and session."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import asyncpg
import pytest
from support.logs import chunk, end_turn, start_turn

from server.db.stores import Stores
from server.embedded.postgres_home import DatabaseUrls
from server.kernel.errors import Fenced, StoreRejected
from server.kernel.identity import Principal
from server.kernel.ports.launcher import MAX_TRANSCRIPT_BYTES


async def test_the_newest_of_an_agent_replaces_the_one_before(stores: Stores, alice: Principal, database: DatabaseUrls) -> None:
    first = await start_turn(stores, alice)
    session_id = first.session.id
    assert await stores.turns.transcript(session_id, "replay") == b""
    await end_turn(stores, first, transcript=b"one")
    assert await stores.turns.transcript(session_id, "replay") == b"one"
    await end_turn(stores, await start_turn(stores, alice, session_id), transcript=b"two\0\xff")
    assert await stores.turns.transcript(session_id, "replay") == b"two\0\xff"
    # A turn that leaves none changes nothing.
    await end_turn(stores, await start_turn(stores, alice, session_id))
    assert await stores.turns.transcript(session_id, "replay") == b"two\0\xff"
    assert await stores.turns.transcript(session_id, "claude") == b""
    connection = await asyncpg.connect(database.owner)
    try:
        assert [tuple(row) for row in await connection.fetch("SELECT turn_number, size FROM transcripts")] == [(2, 5)]
    finally:
        await connection.close()


async def test_a_step_that_is_fenced_leaves_no_transcript(stores: Stores, alice: Principal) -> None:
    claimed = await start_turn(stores, alice)
    with pytest.raises(Fenced):
        await stores.turns.commit(
            replace(claimed.turn), expected_version=1, epoch=claimed.epoch + 1, chunk=chunk(1, 1), transcript=b"of a stale server"
        )
    assert await stores.turns.transcript(claimed.session.id, "replay") == b""


async def test_one_of_the_largest_size_is_kept_whole_and_a_larger_one_not_at_all(stores: Stores, alice: Principal) -> None:
    largest = await asyncio.to_thread(random.Random(7).randbytes, MAX_TRANSCRIPT_BYTES)
    claimed = await start_turn(stores, alice)
    await end_turn(stores, claimed, transcript=largest)
    assert await stores.turns.transcript(claimed.session.id, "replay") == largest
    second = await start_turn(stores, alice, claimed.session.id)
    with pytest.raises(StoreRejected):
        await end_turn(stores, second, transcript=largest + b"x")


@pytest.mark.parametrize("damage", ["data = '\\x00'", "size = 7", "data = substr(data, 1, 9)"])
async def test_a_damaged_one_is_told(stores: Stores, alice: Principal, database: DatabaseUrls, damage: str) -> None:
    claimed = await start_turn(stores, alice)
    await end_turn(stores, claimed, transcript=b"remember this")
    connection = await asyncpg.connect(database.owner)
    try:
        await connection.execute(f"UPDATE transcripts SET {damage}")
    finally:
        await connection.close()
    with pytest.raises(StoreRejected):
        await stores.turns.transcript(claimed.session.id, "replay")


async def test_a_deleted_session_takes_its_transcripts_along(stores: Stores, alice: Principal, database: DatabaseUrls) -> None:
    claimed = await start_turn(stores, alice)
    await end_turn(stores, claimed, transcript=b"remember this")
    await stores.sessions.delete(alice, claimed.session.id)
    connection = await asyncpg.connect(database.owner)
    try:
        assert await connection.fetchval("SELECT count(*) FROM transcripts") == 0
    finally:
        await connection.close()
