"""What sessions know of their pull requests: the newest, told once, whoever looks."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from support.logs import new_session, start_turn

from server.api.event_codec import ProtobufEventCodec
from server.db.stores import Stores
from server.embedded.postgres_home import DatabaseUrls
from server.kernel.code_host import PullRequest, PullRequestState
from server.kernel.errors import TurnActive
from server.kernel.event import Chunk, Envelope
from server.kernel.identity import Principal
from server.kernel.ports.repositories import Repository
from server.kernel.pull_requests import PullRequests
from server.kernel.session import Session
from server.kernel.webhook import Hint
from treadle.session.v1 import event_pb2 as pb

URL, BRANCH = "https://github.com/acme/app.git", "treadle/note"
AT = datetime(2026, 11, 26, 10, 0, tzinfo=UTC)
OPEN = PullRequest(7, "Add a note", "", PullRequestState.OPEN, f"{URL[:-4]}/pull/7", BRANCH, "main", "c" * 40, updated_at=AT)
MERGED = replace(OPEN, state=PullRequestState.MERGED, updated_at=AT + timedelta(minutes=5))


@pytest.fixture
async def session(stores: Stores, alice: Principal, database: DatabaseUrls) -> Session:
    """With a branch on the host; its URL is written in another way than the host does."""
    made = await stores.sessions.create(alice, new_session(), request_id="", request_digest="")
    owner = await asyncpg.connect(database.owner)
    await owner.execute("UPDATE sessions SET branch = $1", BRANCH)
    await owner.close()
    return made


def of(user: Principal) -> Repository:
    return Repository(user.tenant_id, user.user_id, "https://github.com/Acme/App.git")


def seal(first_seq: int, epoch: int) -> Chunk:
    body = pb.Event(pull_request_updated=pb.PullRequestUpdated(number=7)).SerializeToString()
    envelope = Envelope("s", "", 0, epoch, "SERVER", "r1")
    return ProtobufEventCodec().seal(envelope, [body], first_seq=first_seq, event_id_prefix="e/", first_number=1, recorded_at=AT)


async def test_only_what_is_newer_is_news(stores: Stores, session: Session, alice: Principal, bob: Principal, mallory: Principal) -> None:
    store = stores.pull_requests
    assert await store.saw(of(alice), OPEN) == [session.id]
    assert await store.saw(of(alice), OPEN) == []
    # A comment changes nothing that is told.
    assert await store.saw(of(alice), replace(OPEN, updated_at=AT + timedelta(minutes=1))) == []
    assert await store.saw(of(alice), MERGED) == [session.id]
    for late in (OPEN, replace(MERGED, number=6), replace(OPEN, head="main"), replace(OPEN, number=9, from_fork=True)):
        assert await store.saw(of(alice), late) == []
    for other in (bob, mallory):
        assert await store.saw(of(other), replace(OPEN, number=8)) == []
    assert (await stores.sessions.get(alice, session.id)).pull_request == MERGED
    assert await store.saw(of(alice), replace(OPEN, number=8)) == [session.id]


async def test_it_is_told_once_and_not_into_a_turn(stores: Stores, session: Session, alice: Principal) -> None:
    store = stores.pull_requests
    await store.saw(of(alice), OPEN)
    (untold,) = await store.untold(limit=10)
    # As of two servers.
    assert sorted(await asyncio.gather(*(store.tell(untold, seal) for _ in range(2)))) == [False, True]
    assert (await stores.sessions.get(alice, session.id)).last_seq == 1
    assert await store.untold(limit=10) == []
    await store.saw(of(alice), MERGED)
    (untold,) = await store.untold(limit=10)
    # What is not the newest any more is left to whoever looks next.
    assert not await store.tell(replace(untold, pull_request=OPEN), seal)
    claimed = await start_turn(stores, alice, session.id)
    assert await store.untold(limit=10) == []
    with pytest.raises(TurnActive):
        await store.tell(untold, seal)
    assert (await stores.desk.news(claimed.turn)).untold_pull_request == MERGED


async def test_a_look_is_one_server_s_until_it_is_due_again(stores: Stores, session: Session, alice: Principal) -> None:
    store, hint = stores.pull_requests, Hint(URL, BRANCH, 7)
    assert await store.heard("one", hint)
    assert not await store.heard("one", hint)
    looks = await asyncio.gather(*(store.due(limit=8, again_seconds=60) for _ in range(3)))
    (look,) = (look for some in looks for look in some)
    assert (look.session_id, look.repository.owner_id, look.number) == (session.id, alice.user_id, 7)
    # Named again while it was being looked at: once more.
    await store.heard("two", Hint(URL, BRANCH, 8))
    await store.looked(look)
    (again,) = await store.due(limit=8, again_seconds=0)
    assert again.number == 8
    await store.later(again, seconds=3600)
    assert await store.due(limit=8, again_seconds=60) == []
    await store.forget_deliveries(seconds=0)
    assert await store.heard("one", None)
    assert await store.due(limit=8, again_seconds=60) == []


class _HungHost:
    """A code host that does not answer, of all repositories."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    def whole(self, at: Repository, what: str) -> _HungHost:
        return self

    async def pull_request(self, at: Repository, number: int) -> None:
        self.asked.set()
        await asyncio.Event().wait()


async def test_a_host_that_does_not_answer_keeps_no_news_from_logs(stores: Stores, session: Session) -> None:
    store, hung, told = stores.pull_requests, _HungHost(), asyncio.Event()
    notes = SimpleNamespace(sealing=lambda *_, **__: seal)
    journal = SimpleNamespace(look_again=lambda _: told.set())
    looking: Any = PullRequests(store, hung, notes, journal, ProtobufEventCodec(), replica="r1", call=lambda _: None)  # type: ignore[arg-type]
    await store.heard("one", Hint(URL, BRANCH, 7))
    running = asyncio.create_task(looking.run())
    async with asyncio.timeout(10):
        await hung.asked.wait()
        await looking.saw(session.repository, OPEN)
        await told.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_busy_host_s_looks_wait(stores: Stores, session: Session) -> None:
    store = stores.pull_requests
    await store.heard("one", Hint(URL, BRANCH, 7))
    assert await store.due(limit=8, again_seconds=60, except_hosts=["ghe.example", "github.com"]) == []
    (look,) = await store.due(limit=8, again_seconds=60, except_hosts=["ghe.example"])
    assert look.host == "github.com"
