"""Sessions as resources: create, read, list, change, delete, and their log by pages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
from support.git_server import GitServer
from support.git_server import git_server as serving
from support.treadle import Client, error_info, in_process, recording, settings_for

from server.embedded.postgres_home import DatabaseUrls
from treadle.session.v1 import event_pb2
from treadle.session.v1 import session_service_pb2 as pb


@pytest.fixture
def git_server(tmp_path: Path) -> Iterator[GitServer]:
    with serving(tmp_path / "host") as server:
        server.create("acme/app", {"README.md": "# App\n", "quick.jsonl": recording({"say": "hello"}, {"write": "x", "content": "x"})})
        yield server


@pytest.fixture
async def client(database: DatabaseUrls, server_data_dir: Path, git_server: GitServer) -> AsyncIterator[Client]:
    async with in_process(settings_for(database, server_data_dir, git_server)) as (_, client):
        yield client


@pytest.fixture
def url(git_server: GitServer) -> str:
    return f"{git_server.url}/acme/app.git"


async def reason_of(call: object) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return error_info(caught.value)[:2]


async def create(client: Client, url: str, **fields: object) -> object:
    return (await client.call("CreateSession", pb.CreateSessionRequest(repository_url=url, **fields))).session  # type: ignore[arg-type]


async def test_a_created_session_is_idle_and_its_first_turn_makes_the_branch_that_was_asked_for(client: Client, url: str) -> None:
    session = await create(client, url, title="My session", branch="my/branch", labels={"team": "a"}, request_id="c-1")
    assert (session.state, session.base_branch, session.branch, session.last_seq) == (event_pb2.SESSION_STATE_IDLE, "main", "", 0)
    assert session == await create(client, url, title="My session", branch="my/branch", labels={"team": "a"}, request_id="c-1")
    events = await client.run(session_id=session.session_id, prompt="go", provider="replay", model="quick.jsonl")
    read = (await client.call("GetSession", pb.GetSessionRequest(session_id=session.session_id))).session
    assert (read.branch, read.title, read.last_seq, read.provider) == ("my/branch", "My session", events[-1].seq, "replay")
    assert read.head_commit == events[-1].turn_completed.commit
    again = client.call("CreateSession", pb.CreateSessionRequest(repository_url=url, title="Another", request_id="c-1"))
    assert await reason_of(again) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


async def test_a_session_stays_with_its_repository_and_branch(client: Client, url: str, git_server: GitServer) -> None:
    session = await create(client, url)
    git_server.create("acme/other", {"README.md": "other\n"})
    for wrong in ({"repository_url": f"{git_server.url}/acme/other.git"}, {"base_branch": "dev"}, {"title": "new"}):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.run(session_id=session.session_id, prompt="go", **wrong)
        assert error_info(caught.value)[1:] == ("INVALID_FIELD", {}, [*wrong])


async def test_pages_are_newest_first_and_hold_every_session_once(client: Client, url: str) -> None:
    made = [(await create(client, url, title=f"s{n}")).session_id for n in range(7)]
    seen: list[str] = []
    token = ""
    while True:
        page = await client.call("ListSessions", pb.ListSessionsRequest(page_size=3, page_token=token))
        assert len(page.sessions) <= 3
        seen += [session.session_id for session in page.sessions]
        token = page.next_page_token
        if not token:
            break
    assert seen == made[::-1]
    too_large = client.call("ListSessions", pb.ListSessionsRequest(page_size=201))
    assert await reason_of(too_large) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")


async def test_only_what_the_mask_names_is_changed_and_a_lost_update_is_refused(client: Client, url: str) -> None:
    session = await create(client, url, title="one", labels={"a": "1"})

    async def update(version: int, **fields: object) -> object:
        request = pb.UpdateSessionRequest(session_id=session.session_id, version=version, **fields)  # type: ignore[arg-type]
        request.update_mask.paths.extend(fields)
        return (await client.call("UpdateSession", request)).session

    changed = await update(session.version, title="two")
    assert (changed.title, dict(changed.labels)) == ("two", {"a": "1"})
    assert await reason_of(update(session.version, title="three")) == (grpc.StatusCode.ABORTED, "VERSION_CONFLICT")
    changed = await update(changed.version, labels={"b": "2"})
    assert (changed.title, dict(changed.labels)) == ("two", {"b": "2"})
    assert await reason_of(update(0, labels={"bad key": "1"})) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    nothing = client.call("UpdateSession", pb.UpdateSessionRequest(session_id=session.session_id, title="x"))
    assert await reason_of(nothing) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")


async def test_the_log_by_pages_is_the_log(client: Client, url: str) -> None:
    events = await client.run(repository_url=url, prompt="go", provider="replay", model="quick.jsonl")
    session_id, last = events[0].session_id, events[-1].seq
    for size in (1, 3, 1000):
        seen: list[event_pb2.Event] = []
        while True:
            request = pb.ListEventsRequest(session_id=session_id, after_seq=len(seen), page_size=size)
            page = await client.call("ListEvents", request)
            assert page.last_seq == last
            assert 0 < len(page.events) <= size
            seen += page.events
            if seen[-1].seq == last:
                break
        assert seen == events
    beyond = client.call("ListEvents", pb.ListEventsRequest(session_id=session_id, after_seq=last + 1))
    assert await reason_of(beyond) == (grpc.StatusCode.OUT_OF_RANGE, "SEQUENCE_AHEAD")


async def test_a_deleted_session_is_gone_and_its_branch_stays(client: Client, url: str, git_server: GitServer) -> None:
    events = await client.run(repository_url=url, prompt="go", branch="kept", provider="replay", model="quick.jsonl")
    session_id = events[0].session_id
    await client.call("DeleteSession", pb.DeleteSessionRequest(session_id=session_id))
    gone = (grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")
    assert await reason_of(client.call("GetSession", pb.GetSessionRequest(session_id=session_id))) == gone
    assert await reason_of(client.call("ListEvents", pb.ListEventsRequest(session_id=session_id))) == gone
    assert (git_server.root / "acme" / "app.git" / "refs" / "heads" / "kept").exists()
