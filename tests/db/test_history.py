"""The history of sessions: whoever moves the head, in one transaction with what the log tells of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
from support.logs import chunk, end_turn, event, new_session, start_turn

from server.db.migrations import versions
from server.db.stores import Stores
from server.embedded.postgres_home import DatabaseUrls
from server.kernel.errors import HeadMoved, InvalidField, SessionNotFound, SnapshotNotFound, TurnActive
from server.kernel.event import Chunk
from server.kernel.history import LogEnd, NewSnapshot, Snapshot, SnapshotKind
from server.kernel.identity import Principal
from server.kernel.ports.turn_store import Changes

MIGRATION = (Path(versions.__path__[0]) / "0011_snapshots.sql").read_text()
BEFORE = """
    DROP VIEW remembered; DROP TABLE snapshots, past_transcripts, doomed_objects;
    DROP FUNCTION keep_snapshot_of_turn, keep_past_transcript CASCADE;
    ALTER TABLE turns DROP commit_message
"""
"""Undoes it."""

A, B, C, D = ("a" * 40, "b" * 40, "c" * 40, "d" * 40)


def seal(first_seq: int, epoch: int) -> Chunk:
    """One event."""
    del epoch
    return chunk(first_seq, first_seq)


async def edit(stores: Stores, owner: Principal, session_id: str, head: str, commit: str) -> Snapshot:
    snapshot = NewSnapshot(SnapshotKind.EDIT, commit, head, "an edit")
    return await stores.history.record(owner, session_id, head=head, snapshot=snapshot, seal=seal)


async def session_with_a_turn(stores: Stores, owner: Principal, *, commit: str = A, transcript: bytes = b"") -> str:
    claimed = await start_turn(stores, owner)
    await end_turn(stores, claimed, commit=commit, transcript=transcript)
    return claimed.session.id


async def test_a_moment_has_many_names(stores: Stores, alice: Principal) -> None:
    session_id = await session_with_a_turn(stores, alice, transcript=b"remember")
    await edit(stores, alice, session_id, A, B)
    unchanged = await start_turn(stores, alice, session_id)
    await end_turn(stores, replace(unchanged, turn=replace(unchanged.turn, base_commit=B)))
    await edit(stores, alice, session_id, B, C)
    names = {"1": A, A: A, A[:7]: A, "2": B, B[:12]: B, unchanged.turn.id: B, "3": C, "head": C, "": C}
    assert {at: (await stores.history.moment(alice, session_id, at)).commit for at in names} == names
    for missing in ("4", "a" * 6, "e" * 40, "yesterday", "-1", "0" * 40, "1" * 10):
        with pytest.raises(SnapshotNotFound):
            await stores.history.moment(alice, session_id, missing)
    shown = await stores.history.list(alice, session_id, page_size=9, page_token="")
    assert [(each.number, each.current, each.pushed) for each in shown.snapshots] == [
        (3, True, False),
        (2, False, False),
        (1, False, False),
    ]


async def test_turns_and_edits_are_one_history(stores: Stores, alice: Principal) -> None:
    session_id = await session_with_a_turn(stores, alice, transcript=b"remember")
    made = await edit(stores, alice, session_id, A, B)
    assert (made.number, made.parent, made.conversation, made.stored) == (2, A, 1, False)
    claimed = await start_turn(stores, alice, session_id)
    assert claimed.session.head_commit == B
    assert claimed.session.last_seq == 2
    await end_turn(stores, claimed, commit=C)
    page = await stores.history.list(alice, session_id, page_size=2, page_token="")
    assert [(each.number, each.kind, each.commit, each.conversation) for each in page.snapshots] == [
        (3, SnapshotKind.TURN, C, 1),
        (2, SnapshotKind.EDIT, B, 1),
    ]
    (first,) = (await stores.history.list(alice, session_id, page_size=2, page_token=page.next_token)).snapshots
    assert (first.number, first.message, first.actor) == (1, "work", alice.user_id)
    alone = await stores.history.get(alice, session_id, number=1)
    assert replace(alone, actor_name=alice.name, current=first.current, pushed=first.pushed) == first
    assert await stores.history.get(alice, session_id, turn_id=first.turn_id) == alone
    assert [each.data for each in await stores.events.read(session_id, 0, max_bytes=1000)] == [event(1), event(2), event(3)]


async def test_of_parallel_edits_one_is_kept_and_the_others_are_told(stores: Stores, alice: Principal) -> None:
    session_id = await session_with_a_turn(stores, alice)
    done = await asyncio.gather(*(edit(stores, alice, session_id, A, letter * 40) for letter in "bcdef012"), return_exceptions=True)
    (kept,) = (each for each in done if isinstance(each, Snapshot))
    moved = [each for each in done if isinstance(each, HeadMoved)]
    assert len(moved) == 7
    assert {each.metadata["current"] for each in moved} == {kept.commit}
    head = await stores.events.head(session_id)
    assert head is not None
    assert head.next_seq == 3


async def test_an_edit_whose_answer_was_lost_is_found_when_it_is_made_again(stores: Stores, alice: Principal) -> None:
    session_id = await session_with_a_turn(stores, alice)
    assert await edit(stores, alice, session_id, A, B) == await edit(stores, alice, session_id, A, B)
    assert (await stores.sessions.get(alice, session_id)).last_seq == 2


async def test_who_has_seen_the_end_of_the_log_needs_one_statement_and_is_refused_as_all_others(stores: Stores, alice: Principal) -> None:
    session_id = await session_with_a_turn(stores, alice, transcript=b"remember")
    seen = await stores.sessions.get(alice, session_id)
    end = LogEnd(seen.last_seq + 1, seen.epoch)

    async def edit_at(head: str, commit: str, who: Principal = alice) -> Snapshot:
        return await stores.history.record(
            who, session_id, head=head, snapshot=NewSnapshot(SnapshotKind.EDIT, commit, head, "an edit"), seal=seal, end=end
        )

    made = await edit_at(A, B)
    assert (made.number, made.parent, made.conversation, made.stored) == (2, A, 1, False)
    assert await edit_at(A, B) == made
    with pytest.raises(HeadMoved):
        await edit_at(A, C)
    with pytest.raises(SessionNotFound):
        await edit_at(B, C, replace(alice, user_id="somebody"))
    now = await stores.sessions.get(alice, session_id)
    assert (now.head_commit, now.last_seq) == (B, 2)
    assert (await edit_at(B, C)).number == 3, "where the log went on the long way is gone"
    seen = await stores.sessions.get(alice, session_id)
    end = LogEnd(seen.last_seq + 1, seen.epoch)
    await start_turn(stores, alice, session_id)
    with pytest.raises(TurnActive):
        await edit_at(C, D)


async def test_edits_and_a_turn_at_once_leave_one_log(stores: Stores, alice: Principal) -> None:
    session_id = await session_with_a_turn(stores, alice)
    seen = await stores.sessions.get(alice, session_id)
    end = LogEnd(seen.last_seq + 1, seen.epoch)
    edits = [
        stores.history.record(alice, session_id, head=A, snapshot=NewSnapshot(SnapshotKind.EDIT, letter * 40, A), seal=seal, end=end)
        for letter in "bcdef0"
    ]
    *done, started = await asyncio.gather(*edits, start_turn(stores, alice, session_id), return_exceptions=True)
    assert not isinstance(started, BaseException)
    kept = [each for each in done if isinstance(each, Snapshot)]
    assert len(kept) <= 1
    assert all(isinstance(each, (Snapshot, HeadMoved, TurnActive)) for each in done)
    now = await stores.sessions.get(alice, session_id)
    assert (now.head_commit, now.last_seq) == ((kept[0].commit, 2) if kept else (A, 1))
    assert started.session.head_commit == now.head_commit


async def test_a_session_whose_turn_has_not_ended_is_left_alone(stores: Stores, alice: Principal) -> None:
    claimed = await start_turn(stores, alice)
    with pytest.raises(TurnActive):
        await edit(stores, alice, claimed.session.id, "", B)
    with pytest.raises(TurnActive):
        await stores.history.note(alice, claimed.session.id, seal)
    await end_turn(stores, claimed)
    await edit(stores, alice, claimed.session.id, "", B)


async def test_what_is_noted_moves_no_head(stores: Stores, alice: Principal) -> None:
    session_id = await session_with_a_turn(stores, alice)
    await stores.history.note(alice, session_id, seal)
    session = await stores.sessions.get(alice, session_id)
    assert (session.head_commit, session.last_seq) == (A, 2)


async def test_nobody_sees_or_moves_what_belongs_to_others(stores: Stores, alice: Principal, bob: Principal, mallory: Principal) -> None:
    session_id = await session_with_a_turn(stores, alice)
    for stranger in (bob, mallory, replace(mallory, user_id=alice.user_id)):
        with pytest.raises(SessionNotFound):
            await edit(stores, stranger, session_id, A, B)
        with pytest.raises(SessionNotFound):
            await stores.history.note(stranger, session_id, seal)
        with pytest.raises(SessionNotFound):
            await stores.history.list(stranger, session_id, page_size=10, page_token="")
        with pytest.raises(SessionNotFound):
            await stores.history.get(stranger, session_id, number=1)
    for missing in ({"number": 7}, {"turn_id": "no id"}, {"turn_id": session_id}, {}):
        with pytest.raises(SnapshotNotFound):
            await stores.history.get(alice, session_id, **missing)
    with pytest.raises(InvalidField):
        await stores.history.list(alice, session_id, page_size=10, page_token="9x")
    with pytest.raises(SessionNotFound):
        await edit(stores, alice, "no id", A, B)


async def test_what_is_not_stored_yet_is_found_until_it_is(stores: Stores, alice: Principal) -> None:
    session_id = await session_with_a_turn(stores, alice)
    await edit(stores, alice, session_id, A, B)
    first, second = await stores.history.pending(limit=10)
    assert await stores.history.pending(limit=10, after=first) == [second]
    for each in (first, second):
        await stores.history.stored(each, key=f"key-{each.number}", sha256="5a", size=7)
    assert await stores.history.pending(limit=10) == []
    stored = (await stores.history.list(alice, session_id, page_size=9, page_token="")).snapshots
    assert [(each.stored, each.key, each.sha256, each.size) for each in stored] == [(True, "key-2", "5a", 7), (True, "key-1", "5a", 7)]
    turn = await stores.turns.request_interrupt(alice, session_id, "", reason="none")
    assert turn is None


async def test_where_two_snapshots_are_of_one_commit_a_chain_takes_the_one_that_is_stored(stores: Stores, alice: Principal) -> None:
    claimed = await start_turn(stores, alice)
    checkpoint = NewSnapshot(SnapshotKind.CHECKPOINT, B, A, "work")
    await stores.turns.commit(claimed.turn, expected_version=1, epoch=claimed.epoch, chunk=None, changes=Changes(checkpoint=checkpoint))
    first = await stores.history.get(alice, claimed.session.id, number=1)
    await stores.history.stored(first, key="key", sha256="5a", size=7)
    await end_turn(stores, replace(claimed, turn=replace(claimed.turn, base_commit=A)), version=2, commit=B)
    await edit(stores, alice, claimed.session.id, B, C)
    for commit, numbers in ((B, [1]), (C, [1, 3])):
        assert [each.number for each in await stores.history.chain(alice.tenant_id, claimed.session.id, commit)] == numbers


async def test_a_turn_stores_its_own_until_it_has_ended(stores: Stores, alice: Principal) -> None:
    claimed = await start_turn(stores, alice)
    turn = replace(claimed.turn, commit=A)
    await stores.turns.commit(turn, expected_version=1, epoch=claimed.epoch, chunk=chunk(1, 1))
    assert await stores.history.pending(limit=10) == []
    stored = replace(turn, snapshot_state="STORED", snapshot_key="k", snapshot_sha256="5a", snapshot_size=7)
    await stores.turns.commit(stored, expected_version=2, epoch=claimed.epoch, chunk=chunk(2, 2))
    found = await stores.history.get(alice, claimed.session.id, turn_id=turn.id)
    assert (found.number, found.stored, found.key, found.size) == (1, True, "k", 7)


async def test_servers_of_the_version_before_leave_nothing_out(stores: Stores, alice: Principal, database: DatabaseUrls) -> None:
    """Their statements, which know nothing of the new tables."""
    claimed = await start_turn(stores, alice)
    session_id = claimed.session.id
    connection = await asyncpg.connect(database.system)
    try:
        await connection.execute(
            "INSERT INTO transcripts (tenant_id, session_id, provider, turn_number, data, size) VALUES ($1, $2, 'replay', 1, '\\x00', 1)",
            alice.tenant_id, session_id,
        )  # fmt: skip
        await connection.execute("UPDATE turns SET commit = $1, snapshot_state = 'PENDING', state = 'COMPLETED'", A)
        (pending,) = await stores.history.pending(limit=10)
        assert (pending.commit, pending.conversation) == (A, 1)
        await connection.execute(
            "UPDATE turns SET snapshot_state = 'STORED', snapshot_key = 'k', snapshot_sha256 = '5a', snapshot_size = 7 WHERE NOT active"
        )
    finally:
        await connection.close()
    assert (await stores.history.get(alice, session_id, number=1)).stored
    assert await stores.history.pending(limit=10) == []


async def test_a_session_that_is_deleted_takes_its_history_along_and_dooms_its_objects(
    stores: Stores, alice: Principal, database: DatabaseUrls
) -> None:
    session_id = await session_with_a_turn(stores, alice, transcript=b"remember")
    await stores.sessions.delete(alice, session_id)
    connection = await asyncpg.connect(database.owner)
    try:
        for table in ("snapshots", "past_transcripts"):
            assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0
        assert await connection.fetchval("SELECT prefix FROM doomed_objects") == f"{alice.tenant_id}/{session_id}/"
    finally:
        await connection.close()
    assert await stores.history.pending(limit=10) == []
    with pytest.raises(SessionNotFound):
        await stores.history.list(alice, session_id, page_size=1, page_token="")


async def test_past_transcripts_are_kept_up_to_a_bound(stores: Stores, alice: Principal, database: DatabaseUrls) -> None:
    session = await stores.sessions.create(alice, new_session(), request_id="", request_digest="")
    connection = await asyncpg.connect(database.owner)
    try:
        for number, size in [*((number, 1) for number in range(1, 104)), (104, 110 * 2**20), (105, 20 * 2**20)]:
            await connection.execute(
                "INSERT INTO transcripts (tenant_id, session_id, provider, turn_number, data, size) "
                "VALUES ($1, $2, 'replay', $3, convert_to(repeat('x', $4), 'UTF8'), 1) ON CONFLICT (tenant_id, session_id, provider) "
                "DO UPDATE SET turn_number = excluded.turn_number, data = excluded.data",
                alice.tenant_id, session.id, number, size,
            )  # fmt: skip
            if number == 103:
                rows = await connection.fetch("SELECT turn_number FROM past_transcripts ORDER BY turn_number")
                assert [row[0] for row in rows] == [*range(4, 104)]
        rows = await connection.fetch("SELECT turn_number FROM past_transcripts ORDER BY turn_number")
        assert [row[0] for row in rows] == [105]
    finally:
        await connection.close()


async def test_what_there_was_before_is_taken_over(stores: Stores, alice: Principal, database: DatabaseUrls) -> None:
    """The migration's own statements, by an owner whom row-level security binds. Memories are copied when they are replaced."""
    session_id = await session_with_a_turn(stores, alice, transcript=b"remember")
    await end_turn(stores, await start_turn(stores, alice, session_id))
    await end_turn(stores, await start_turn(stores, alice, session_id), commit=B)
    connection = await asyncpg.connect(database.owner)
    try:
        await connection.execute(f"""
            UPDATE turns SET snapshot_state = 'STORED', snapshot_key = 'k', snapshot_size = 7 WHERE number = 1;
            {BEFORE};
            CREATE ROLE plain;
            GRANT ALL ON SCHEMA public TO plain;
            ALTER TABLE sessions OWNER TO plain; ALTER TABLE session_heads OWNER TO plain;
            ALTER TABLE turns OWNER TO plain; ALTER TABLE transcripts OWNER TO plain;
            SET ROLE plain;
        """)
        await connection.execute(MIGRATION)
    finally:
        await connection.execute("RESET ROLE; REASSIGN OWNED BY plain TO CURRENT_USER; DROP OWNED BY plain; DROP ROLE plain")
        await connection.close()
    second, first = (await stores.history.list(alice, session_id, page_size=9, page_token="")).snapshots
    assert [(each.number, each.commit, each.stored, each.conversation) for each in (first, second)] == [(1, A, True, 1), (2, B, False, 1)]
    past = "SELECT turn_number, data FROM past_transcripts ORDER BY turn_number"
    owner = await asyncpg.connect(database.owner)
    try:
        assert await owner.fetch(past) == []
        assert (await stores.history.moment(alice, session_id, "1")).conversation == 1
        await end_turn(stores, await start_turn(stores, alice, session_id), commit=C, transcript=b"more")
        assert [row["turn_number"] for row in await owner.fetch(past)] == [1, 4]
        assert (await stores.history.moment(alice, session_id, "1")).conversation == 1
    finally:
        await owner.close()


async def test_what_there_was_before_is_still_remembered_when_a_session_goes_back(
    stores: Stores, alice: Principal, database: DatabaseUrls
) -> None:
    session_id = await session_with_a_turn(stores, alice, transcript=b"remember")
    owner = await asyncpg.connect(database.owner)
    try:
        await owner.execute("DELETE FROM past_transcripts")
        moment = await stores.history.moment(alice, session_id, "1")
        snapshot = NewSnapshot(SnapshotKind.RESTORE, B, A, "back", restored=moment)
        made = await stores.history.record(alice, session_id, head=A, snapshot=snapshot, seal=seal)
        assert made.conversation == moment.conversation == 1
        assert [row["turn_number"] for row in await owner.fetch("SELECT turn_number FROM transcripts")] == [1]
    finally:
        await owner.close()


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("SELECT FROM turns", "UPDATE sessions SET updated_at = now()"),
        ("UPDATE sessions SET updated_at = now()", "SELECT FROM turns"),
    ],
)
async def test_the_migration_gives_way_to_servers_at_work(
    stores: Stores, alice: Principal, database: DatabaseUrls, first: str, then: str
) -> None:
    """Whatever they have locked already when it comes: neither is killed for a deadlock."""
    await session_with_a_turn(stores, alice)
    owner, server = await asyncpg.connect(database.owner), await asyncpg.connect(database.owner)
    try:
        await owner.execute(BEFORE)
        async with server.transaction():
            await server.fetch(first)
            migrating = asyncio.create_task(owner.execute(MIGRATION))
            async with asyncio.timeout(20):
                while not await server.fetchval(
                    "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1", owner.get_server_pid()
                ):
                    await asyncio.sleep(0.01)
            async with asyncio.timeout(5):
                await server.fetch(then)
        await migrating
        assert await owner.fetchval("SELECT count(*) FROM snapshots") == 1
    finally:
        await owner.close()
        await server.close()
