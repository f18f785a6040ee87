"""What a session remembers of its pushes, by a turn's step and between turns."""

from __future__ import annotations

from dataclasses import replace

import asyncpg
import pytest
from support.logs import chunk, end_turn, start_turn

from server.db.stores import Stores
from server.embedded.postgres_home import DatabaseUrls
from server.kernel.errors import SessionNotFound, TurnActive
from server.kernel.event import Chunk
from server.kernel.identity import Principal
from server.kernel.ports.turn_store import Claimed
from server.kernel.push_refusal import PushOutcome, PushRefusal
from server.kernel.session import Session

A, B = "a" * 40, "b" * 40
NO = PushOutcome("", PushRefusal.PERMISSION, "not you")


def seal(first_seq: int, epoch: int) -> Chunk:
    """One event."""
    del epoch
    return chunk(first_seq, first_seq)


async def turn_with(stores: Stores, owner: Principal, push: PushOutcome, *, commit: str = A) -> Claimed:
    """A turn that has committed, and tried to push."""
    claimed = await start_turn(stores, owner)
    turn = replace(claimed.turn, commit=commit, push_attempted=True, pushed=push.refusal is None)
    await stores.turns.commit(turn, expected_version=1, epoch=1, chunk=None, session_head_commit=commit, session_push=push)
    return replace(claimed, turn=replace(turn, version=2))


def of(session: Session) -> tuple[str, PushRefusal | None, str]:
    return session.unpushed_commit, session.push_refusal, session.push_message


async def test_a_turn_s_push_is_the_session_s(stores: Stores, alice: Principal) -> None:
    pushed = await turn_with(stores, alice, PushOutcome(A))
    assert of(await stores.sessions.get(alice, pushed.session.id)) == ("", None, "")
    refused = await turn_with(stores, alice, NO)
    session = await stores.sessions.get(alice, refused.session.id)
    assert of(session) == (A, PushRefusal.PERMISSION, "not you")
    # What comes after it in the same turn changes nothing about it.
    await end_turn(stores, refused, version=2, commit=A)
    assert of(await stores.sessions.get(alice, session.id)) == of(session)


async def test_a_push_between_turns_is_remembered_with_its_events(stores: Stores, alice: Principal, bob: Principal) -> None:
    claimed = await turn_with(stores, alice, NO)
    session_id = claimed.session.id
    with pytest.raises(TurnActive):
        await stores.history.note(alice, session_id, seal, push=PushOutcome(A))
    await end_turn(stores, claimed, version=2, commit=A)
    with pytest.raises(SessionNotFound):
        await stores.history.note(bob, session_id, seal, push=PushOutcome(A))
    await stores.history.note(alice, session_id, seal, push=replace(NO, message="still not you"))
    assert of(await stores.sessions.get(alice, session_id)) == (A, PushRefusal.PERMISSION, "still not you")
    await stores.history.note(alice, session_id, seal, branch="other", push=PushOutcome(A))
    session = await stores.sessions.get(alice, session_id)
    assert (*of(session), session.branch, session.last_seq) == ("", None, "", "other", 3)


async def test_what_a_server_of_the_version_before_has_pushed_counts(stores: Stores, alice: Principal, database: DatabaseUrls) -> None:
    claimed = await turn_with(stores, alice, NO)
    owner = await asyncpg.connect(database.system)
    try:
        await owner.execute("UPDATE turns SET pushed = true WHERE id = $1", claimed.turn.id)
    finally:
        await owner.close()
    assert of(await stores.sessions.get(alice, claimed.session.id)) == ("", None, "")
