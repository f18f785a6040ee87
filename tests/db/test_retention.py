"""Old snapshots in the database: who looks after a session, and that nothing which is stored is ever doomed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import asyncpg
from support.logs import chunk, end_turn, start_turn

from server.db.stores import Stores
from server.embedded.postgres_home import DatabaseUrls
from server.kernel.event import Chunk
from server.kernel.history import Answer, NewSnapshot, Snapshot, SnapshotKind
from server.kernel.identity import Principal
from server.kernel.ports.turn_store import Changes
from server.kernel.retention import ANSWERS_KEPT, Policy
from server.kernel.session import Session

OLD = Policy(kept=timedelta(days=1))
A, B, C = ("a" * 40, "b" * 40, "c" * 40)


def seal(first_seq: int, epoch: int) -> Chunk:
    del epoch
    return chunk(first_seq, first_seq)


async def run(database: DatabaseUrls, statement: str) -> None:
    admin = await asyncpg.connect(database.owner)
    try:
        await admin.execute(statement)
    finally:
        await admin.close()


async def two_snapshots(stores: Stores, database: DatabaseUrls, owner: Principal) -> tuple[Session, Snapshot]:
    """A session with two that are stored, the first one old; and that one."""
    claimed = await start_turn(stores, owner)
    await end_turn(stores, claimed, commit=A)
    session_id = claimed.session.id
    edit = NewSnapshot(SnapshotKind.EDIT, B, A, "an edit")
    await stores.history.record(owner, session_id, head=A, snapshot=edit, seal=seal)
    for number in (1, 2):
        row = await stores.history.get(owner, session_id, number=number)
        await stores.history.stored(row, key=f"{owner.tenant_id}/{session_id}/{number}.bundle", sha256="0" * 64, size=10)
    await run(database, "UPDATE snapshots SET created_at = now() - interval '10 days' WHERE number = 1")
    return await stores.sessions.get(owner, session_id), await stores.history.get(owner, session_id, number=1)


async def test_a_session_is_looked_after_by_one_replica_at_a_time(stores: Stores, alice: Principal, database: DatabaseUrls) -> None:
    sessions = [(await two_snapshots(stores, database, alice))[0] for _ in range(3)]
    assert await stores.history.waiting(OLD, claimed_seconds=60) == 3
    first = await stores.history.aged(OLD, limit=2, claimed_seconds=60)
    second = await stores.history.aged(OLD, limit=2, claimed_seconds=60)
    assert (len(first), len(second)) == (2, 1)
    assert {each.id for each in (*first, *second)} == {each.id for each in sessions}
    assert await stores.history.aged(OLD, limit=2, claimed_seconds=60) == []
    assert await stores.history.waiting(OLD, claimed_seconds=60) == 0
    assert len(await stores.history.aged(OLD, limit=5, claimed_seconds=0)) == 3, "for so long, and no longer"


async def test_what_is_stored_is_never_doomed(stores: Stores, alice: Principal, database: DatabaseUrls) -> None:
    session, first = await two_snapshots(stores, database, alice)
    await stores.history.announce(session, first.key)
    assert not await stores.history.rebase(first, replace(first, parent="")), "it was not announced"
    await run(database, "UPDATE doomed_objects SET due_at = now() - interval '1 second'")
    assert await stores.history.doomed(limit=9, after="") == []
    # Also where something else should doom it.
    await run(database, f"INSERT INTO doomed_objects (tenant_id, prefix) VALUES ('{alice.tenant_id}', '{first.key}')")
    assert await stores.history.doomed(limit=9, after="") == []
    assert await stores.history.expire(session, [1]) == 0, "the second stands on it"
    second = await stores.history.get(alice, session.id, number=2)
    made = replace(second, parent=first.parent, key=f"{second.key}.whole")
    await stores.history.announce(session, made.key)
    assert await stores.history.rebase(second, made)
    assert await stores.history.expire(session, [1]) == 1
    assert set(await stores.history.doomed(limit=9, after="")) == {first.key, second.key}


async def test_of_two_that_rebase_one_snapshot_the_second_loses_only_its_own_object(
    stores: Stores, alice: Principal, database: DatabaseUrls
) -> None:
    session, first = await two_snapshots(stores, database, alice)
    second = await stores.history.get(alice, session.id, number=2)
    a, b = (replace(second, parent=first.parent, key=f"{second.key}.{who}") for who in "ab")
    await stores.history.announce(session, a.key)
    await stores.history.announce(session, b.key)
    assert await stores.history.rebase(second, a)
    assert not await stores.history.rebase(second, b)
    await run(database, "UPDATE doomed_objects SET due_at = now() - interval '1 second'")
    assert set(await stores.history.doomed(limit=9, after="")) == {second.key, b.key}
    assert (await stores.history.get(alice, session.id, number=2)).key == a.key


async def test_of_a_running_turn_the_last_two_checkpoints_are_kept(stores: Stores, alice: Principal, database: DatabaseUrls) -> None:
    claimed = await start_turn(stores, alice)
    session_id = claimed.session.id

    async def checkpoint(version: int, commit: str) -> None:
        changes = Changes(checkpoint=NewSnapshot(SnapshotKind.CHECKPOINT, commit, A, "work"))
        await stores.turns.commit(claimed.turn, expected_version=version, epoch=claimed.epoch, chunk=None, changes=changes)

    async def states() -> list[tuple[bool, bool, int]]:
        page = await stores.history.list(alice, session_id, page_size=9, page_token="")
        return [(each.stored, each.expired, each.size) for each in page.snapshots]

    await checkpoint(1, "1" * 40)
    first = await stores.history.get(alice, session_id, number=1)
    await stores.history.stored(first, key=f"{alice.tenant_id}/{session_id}/1.bundle", sha256="0" * 64, size=10)
    await checkpoint(2, "2" * 40)
    assert await states() == [(False, False, 0), (True, False, 10)]
    second = await stores.history.get(alice, session_id, number=2)
    await checkpoint(3, "3" * 40)
    await checkpoint(4, "4" * 40)
    assert await states() == [(False, False, 0), (False, False, 0), (False, True, 0), (True, False, 10)], "the only one that is stored"
    third = await stores.history.get(alice, session_id, number=3)
    await stores.history.stored(third, key=f"{alice.tenant_id}/{session_id}/3.bundle", sha256="0" * 64, size=10)
    await checkpoint(5, "5" * 40)
    assert await states() == [(False, False, 0), (False, False, 0), (True, False, 10), (False, True, 0), (False, True, 0)]
    late = f"{alice.tenant_id}/{session_id}/2.bundle"
    await stores.history.stored(second, key=late, sha256="0" * 64, size=10)
    await run(database, "UPDATE doomed_objects SET due_at = now() - interval '1 second'")
    assert set(await stores.history.doomed(limit=9, after="")) == {f"{alice.tenant_id}/{session_id}/1.bundle", late}


async def test_of_a_running_turn_what_its_last_two_checkpoints_stand_on_is_kept(stores: Stores, alice: Principal) -> None:
    claimed = await start_turn(stores, alice)

    async def checkpoint(version: int, commit: str, parent: str) -> list[int]:
        """The numbers of those that are kept."""
        changes = Changes(checkpoint=NewSnapshot(SnapshotKind.CHECKPOINT, commit * 40, parent, "work"))
        await stores.turns.commit(claimed.turn, expected_version=version, epoch=claimed.epoch, chunk=None, changes=changes)
        page = await stores.history.list(alice, claimed.session.id, page_size=9, page_token="")
        return [each.number for each in page.snapshots if not each.expired]

    assert await checkpoint(1, "1", A) == [1]
    assert await checkpoint(2, "2", "1" * 40) == [2, 1]
    # The files are again what they were in the first.
    assert await checkpoint(3, "1", "2" * 40) == [3, 2, 1]
    assert await checkpoint(4, "4", A) == [4, 3, 2, 1]
    assert await checkpoint(5, "5", "4" * 40) == [5, 4]


async def test_of_a_running_turn_what_its_newest_stored_checkpoint_stands_on_is_kept(stores: Stores, alice: Principal) -> None:
    claimed = await start_turn(stores, alice)
    session_id = claimed.session.id

    async def checkpoint(version: int, commit: str, parent: str, *, is_stored: bool) -> list[int]:
        """The numbers of those that are kept."""
        changes = Changes(checkpoint=NewSnapshot(SnapshotKind.CHECKPOINT, commit * 40, parent, "work"))
        await stores.turns.commit(claimed.turn, expected_version=version, epoch=claimed.epoch, chunk=None, changes=changes)
        if is_stored:
            row = await stores.history.get(alice, session_id, number=version)
            await stores.history.stored(row, key=f"{alice.tenant_id}/{session_id}/{version}.bundle", sha256="0" * 64, size=10)
        page = await stores.history.list(alice, session_id, page_size=9, page_token="")
        return [each.number for each in page.snapshots if not each.expired]

    await checkpoint(1, "1", A, is_stored=True)
    await checkpoint(2, "2", A, is_stored=False)
    # The files are again what they were in the first; this time nobody has stored it.
    await checkpoint(3, "1", A, is_stored=False)
    assert await checkpoint(4, "4", "1" * 40, is_stored=True) == [4, 3, 1]
    for version in (5, 6, 7):
        kept = await checkpoint(version, str(version), A, is_stored=False)
    assert kept == [7, 6, 4, 1]


async def test_what_is_given_up_keeps_nothing_else(stores: Stores, alice: Principal, database: DatabaseUrls) -> None:
    session, _ = await two_snapshots(stores, database, alice)
    await stores.history.record(alice, session.id, head=B, snapshot=NewSnapshot(SnapshotKind.EDIT, C, B, "an edit"), seal=seal)
    await run(database, "UPDATE snapshots SET created_at = now() - interval '10 days'")
    third = await stores.history.get(alice, session.id, number=3)
    assert 2 not in (await stores.history.shelf(session, OLD))[1], "the third stands on it"
    await stores.history.lost(third)
    rows, old = await stores.history.shelf(session, OLD)
    assert ([each.number for each in rows], old) == ([1, 2], {1, 2})
    assert (await stores.history.get(alice, session.id, number=3)).lost
    assert await stores.history.pending(limit=9) == []
    assert await stores.history.chain(alice.tenant_id, session.id, C) == []
    await stores.history.lost(await stores.history.get(alice, session.id, number=2))
    assert (await stores.history.get(alice, session.id, number=2)).stored


async def test_answers_to_edits_are_forgotten_in_time(stores: Stores, alice: Principal, database: DatabaseUrls) -> None:
    session, _ = await two_snapshots(stores, database, alice)
    for request_id in ("old", "new"):
        assert await stores.history.answer(alice, session.id, Answer(request_id, "digest", ()))
    await run(database, "UPDATE edit_requests SET created_at = now() - interval '8 days' WHERE request_id = 'old'")
    await stores.history.forget_answers(ANSWERS_KEPT)
    assert await stores.history.answered(alice, session.id, "old") is None
    assert await stores.history.answered(alice, session.id, "new") is not None
