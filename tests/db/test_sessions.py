"""Sessions, as their owners see them."""

from __future__ import annotations

import asyncio
import base64

import asyncpg
import pytest
from support.logs import end_turn, new_session, run_of, start_turn, start_worker

from server.db.stores import Stores
from server.embedded.postgres_home import DatabaseUrls
from server.kernel.errors import InvalidField, RequestIdReused, SessionNotFound, TurnActive, VersionConflict
from server.kernel.identity import Principal
from server.kernel.session import Session, SessionState


async def create(stores: Stores, owner: Principal, *, request_id: str = "", digest: str = "d") -> Session:
    return await stores.sessions.create(owner, new_session(), request_id=request_id, request_digest=digest)


async def test_a_session_is_read_as_it_was_made(stores: Stores, alice: Principal) -> None:
    wanted = new_session()
    session = await stores.sessions.create(alice, wanted, request_id="", request_digest="")
    assert (session.id, session.title, session.labels, session.repository_url) == (
        wanted.id,
        wanted.title,
        wanted.labels,
        wanted.repository_url,
    )
    assert (session.state, session.version, session.last_seq, session.active_turn_id) == (SessionState.IDLE, 1, 0, "")
    assert await stores.sessions.get(alice, session.id) == session
    head = await stores.events.head(session.id)
    assert head is not None
    assert (head.next_seq, head.epoch) == (1, 0)


async def test_what_belongs_to_others_does_not_exist(stores: Stores, alice: Principal, bob: Principal, mallory: Principal) -> None:
    session = await create(stores, alice, request_id="r")
    for stranger in (bob, mallory):
        for attempt in (
            stores.sessions.get(stranger, session.id),
            stores.sessions.update(stranger, session.id, title="mine", labels=None, allowed_hosts=None, version=0),
            stores.sessions.delete(stranger, session.id),
        ):
            with pytest.raises(SessionNotFound) as refused:
                await attempt
            assert str(refused.value) == str(SessionNotFound(session.id))
        assert (await stores.sessions.list(stranger, page_size=10, page_token="")).sessions == ()
        assert await stores.sessions.find_request(stranger, "r", "d") is None
    assert await stores.sessions.get(alice, session.id) == session


@pytest.mark.parametrize("session_id", ["", "no uuid", "6fd68c77-94b1-48f3-903e-ea2fc1e7e07e", "'; DROP TABLE sessions; --", "0" * 500])
async def test_an_id_of_nothing_is_not_found(stores: Stores, alice: Principal, session_id: str) -> None:
    with pytest.raises(SessionNotFound):
        await stores.sessions.get(alice, session_id)
    with pytest.raises(SessionNotFound):
        await stores.sessions.delete(alice, session_id)


async def test_creates_that_race_on_one_request_id_make_one_session(
    stores: Stores, alice: Principal, bob: Principal, mallory: Principal
) -> None:
    made = await asyncio.gather(*(create(stores, alice, request_id="once") for _ in range(8)))
    assert len({session.id for session in made}) == 1
    assert await stores.sessions.find_request(alice, "once", "d") == made[0]
    with pytest.raises(RequestIdReused):
        await create(stores, alice, request_id="once", digest="other")
    with pytest.raises(RequestIdReused):
        await stores.sessions.find_request(alice, "once", "other")
    assert await stores.sessions.find_request(alice, "never", "d") is None
    assert len({(await create(stores, user, request_id="once")).id for user in (alice, bob, mallory)}) == 3


async def test_pages_are_newest_first_and_stable_while_sessions_are_made(stores: Stores, alice: Principal) -> None:
    made = [(await create(stores, alice)).id for _ in range(7)]
    seen: list[str] = []
    token = ""
    while True:
        page = await stores.sessions.list(alice, page_size=2, page_token=token)
        seen += [session.id for session in page.sessions]
        token = page.next_token
        if not token:
            break
        await create(stores, alice)
    assert seen == list(reversed(made))


@pytest.mark.parametrize(
    "token", ["x", "####", base64.urlsafe_b64encode(b"2026-01-01T00:00:00 x").decode(), base64.urlsafe_b64encode(b"a b").decode()]
)
async def test_a_forged_page_token_is_an_invalid_field(stores: Stores, alice: Principal, token: str) -> None:
    with pytest.raises(InvalidField):
        await stores.sessions.list(alice, page_size=2, page_token=token)


async def test_an_update_changes_what_is_given_and_refuses_a_stale_version(stores: Stores, alice: Principal) -> None:
    session = await create(stores, alice)
    renamed = await stores.sessions.update(alice, session.id, title="New", labels=None, allowed_hosts=None, version=1)
    assert (renamed.title, renamed.labels, renamed.version) == ("New", session.labels, 2)
    labelled = await stores.sessions.update(alice, session.id, title=None, labels={}, allowed_hosts=None, version=0)
    assert (labelled.title, labelled.labels, labelled.version) == ("New", {}, 3)
    allowing = await stores.sessions.update(alice, session.id, title=None, labels=None, allowed_hosts=["a.test"], version=3)
    assert (allowing.title, allowing.allowed_hosts, labelled.allowed_hosts) == ("New", ("a.test",), ())
    with pytest.raises(VersionConflict):
        await stores.sessions.update(alice, session.id, title="Stale", labels=None, allowed_hosts=None, version=1)
    results = await asyncio.gather(
        *(stores.sessions.update(alice, session.id, title=str(number), labels=None, allowed_hosts=None, version=4) for number in range(6)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, Session) for result in results) == 1


async def test_delete_leaves_nothing_and_spares_the_rest(stores: Stores, alice: Principal, database: DatabaseUrls) -> None:
    doomed, kept = await start_worker(stores, alice), await start_worker(stores, alice)
    for worker in (doomed, kept):
        await stores.events.append([run_of(worker, 1, 3)])
    with pytest.raises(TurnActive):
        await stores.sessions.delete(alice, doomed.session.id)
    await end_turn(stores, doomed, version=2)
    await stores.sessions.delete(alice, doomed.session.id)
    with pytest.raises(SessionNotFound):
        await stores.sessions.get(alice, doomed.session.id)
    owner = await asyncpg.connect(database.owner)
    try:
        for table in ("turns", "session_heads", "event_chunks"):
            assert {str(row[0]) for row in await owner.fetch(f"SELECT session_id FROM {table}")} == {kept.session.id}
    finally:
        await owner.close()


async def test_a_delete_and_a_start_exclude_each_other(stores: Stores, alice: Principal) -> None:
    for _ in range(20):
        session = await create(stores, alice)
        started, deleted = await asyncio.gather(
            start_turn(stores, alice, session.id), stores.sessions.delete(alice, session.id), return_exceptions=True
        )
        if deleted is None:
            assert isinstance(started, SessionNotFound)
        else:
            assert isinstance(deleted, TurnActive)
            assert not isinstance(started, BaseException)
