"""Fork and restore on a whole server: files and conversation, with a real agent whose model is faked at HTTP."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.fake_anthropic import FakeAnthropic, fake_anthropic, say, use
from support.git_server import GitServer, git
from support.sandbox import require_sandbox
from support.treadle import Client, branch_of, error_info, in_process, kinds, pushed_files, settings_for

from server.embedded.postgres_home import DatabaseUrls
from treadle.session.v1 import event_pb2, snapshot_pb2
from treadle.session.v1 import session_service_pb2 as pb

pytestmark = pytest.mark.timeout(200)


@pytest.fixture
async def fake() -> AsyncIterator[FakeAnthropic]:
    require_sandbox()
    async with fake_anthropic() as opened:
        yield opened


@pytest.fixture
def changes(fake: FakeAnthropic) -> dict[str, Any]:
    return {"anthropic_url": fake.url, "anthropic_api_key": "sk-ant-test", "naming": False, "snapshot_retry_seconds": 0.2}


@pytest.fixture
def bare(git_server: GitServer) -> Path:
    return git_server.create("acme/app", {"README.md": "# App\n"})


class Story:
    """A session whose turns each write a file of their name."""

    def __init__(self, client: Client, fake: FakeAnthropic, git_server: GitServer) -> None:
        self.client = client
        self.session_id = ""
        self._fake = fake
        self._url = f"{git_server.url}/acme/app.git"

    async def turn(self, name: str, session_id: str = "") -> list[event_pb2.Event]:
        mark = self._fake.plays(name, [use("write", file_path=f"{name}.txt", content=f"{name}\n")], [say("Done.")])
        session_id = session_id or self.session_id
        where = {"session_id": session_id} if session_id else {"repository_url": self._url, "title": "A story"}
        events = await self.client.run(prompt=mark, provider="" if session_id else "anthropic", **where)
        assert events[-1].turn_completed.status == event_pb2.TURN_STATUS_COMPLETED, events[-1]
        self.session_id = self.session_id or events[0].session_id
        return events

    @property
    def heard(self) -> list[str]:
        """The turns of which the agent's last request to its model knew."""
        said = json.dumps(self._fake.messages[-1].body["messages"])
        return [*dict.fromkeys(re.findall(r"\[\[script:(\w+)", said))]

    async def snapshots(self, session_id: str) -> list[snapshot_pb2.Snapshot]:
        return list((await self.client.call("ListSnapshots", pb.ListSnapshotsRequest(session_id=session_id))).snapshots)

    async def fork(self, at: str = "", **fields: str) -> Any:
        fields = {"session_id": self.session_id, **fields}
        return (await self.client.call("ForkSession", pb.ForkSessionRequest(at=at, **fields))).session

    async def restore(self, at: str, **fields: str) -> Any:
        return await self.client.call("RestoreSession", pb.RestoreSessionRequest(session_id=self.session_id, at=at, **fields))


@pytest.fixture
def story(client: Client, fake: FakeAnthropic, git_server: GitServer, bare: Path) -> Story:
    return Story(client, fake, git_server)


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    code, reason, _, _ = error_info(caught.value)
    return code, reason


async def test_a_fork_goes_on_from_a_past_turn_and_outlives_its_parent(story: Story, client: Client, bare: Path) -> None:
    first = await story.turn("one")
    await story.turn("two")
    forked = await story.fork(first[0].turn_id, title="Another", request_id="fork")
    assert await story.fork(first[0].turn_id, title="Another", request_id="fork") == forked
    assert (forked.title, forked.branch, forked.head_commit) == ("Another", "", first[-1].turn_completed.commit)
    (event,) = await client.log(forked.session_id)
    assert event.session_forked == event_pb2.SessionForked(
        parent_session_id=story.session_id, parent_turn_id=first[0].turn_id, commit=forked.head_commit, remembered=True
    )
    assert await refused(story.fork("", request_id="fork")) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    await client.call("DeleteSession", pb.DeleteSessionRequest(session_id=story.session_id))
    third = await story.turn("three", forked.session_id)
    assert story.heard == ["one", "three"]
    assert set(pushed_files(bare, branch_of(third))) == {"README.md", "one.txt", "three.txt"}
    history = await story.snapshots(forked.session_id)
    assert [each.kind for each in history] == [snapshot_pb2.SNAPSHOT_KIND_TURN, snapshot_pb2.SNAPSHOT_KIND_FORK]
    # A fork of the fork, from its beginning.
    again = await story.fork("1", session_id=forked.session_id)
    await story.turn("four", again.session_id)
    assert story.heard == ["one", "four"]
    await client.log(again.session_id)


async def test_a_fork_says_what_it_goes_on_from(story: Story, client: Client) -> None:
    first = await story.turn("one")
    turn_id, commit = first[0].turn_id, first[-1].turn_completed.commit
    asked = {turn_id.upper(): (turn_id, 0), "1": ("", 1), commit: ("", 1), commit[:7]: ("", 1), "head": ("", 0), "": ("", 0), "0": ("", 0)}
    told = {}
    for at in asked:
        forked = await story.fork(at)
        (event,) = await client.log(forked.session_id)
        told[at] = (event.session_forked.parent_turn_id, event.session_forked.parent_snapshot)
    assert told == asked


async def test_a_session_goes_back_to_a_past_turn_and_nothing_is_lost(story: Story, client: Client, bare: Path) -> None:
    first = await story.turn("one")
    second = await story.turn("two")
    head = second[-1].turn_completed.commit
    assert await refused(story.restore(first[0].turn_id, if_head="0" * 40)) == (grpc.StatusCode.ABORTED, "HEAD_MOVED")
    assert await refused(story.restore("")) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    for missing in ("7", story.session_id, "no id"):
        assert await refused(story.restore(missing)) == (grpc.StatusCode.NOT_FOUND, "SNAPSHOT_NOT_FOUND")
    made = await story.restore(first[0].turn_id, if_head=head)
    assert (made.snapshot.number, made.snapshot.kind, made.snapshot.parent) == (3, snapshot_pb2.SNAPSHOT_KIND_RESTORE, head)
    assert made.session.head_commit == made.snapshot.commit
    log = await client.log(story.session_id)
    # It is there: nothing more is made, however the point is named.
    for at in (first[0].turn_id, "1", first[-1].turn_completed.commit[:12], "3", "head"):
        assert (await story.restore(at)).snapshot.commit == made.snapshot.commit
    assert len(await client.log(story.session_id)) == len(log)
    history = await story.snapshots(story.session_id)
    assert [(each.number, each.current, each.pushed, bool(each.actor_name)) for each in history] == [
        (3, True, False, True),
        (2, False, True, True),
        (1, False, True, True),
    ]
    assert kinds(log[-2:]) == ["file_changed", "git_updated"]
    assert [(change.path, change.operation) for change in log[-2].file_changed.changes] == [("two.txt", event_pb2.FILE_OPERATION_DELETED)]
    third = await story.turn("three")
    assert story.heard == ["one", "three"]
    assert set(pushed_files(bare, branch_of(first))) == {"README.md", "one.txt", "three.txt"}
    assert git(bare, "rev-parse", f"{third[-1].turn_completed.commit}~2") == head
    # And forward again.
    await story.restore(second[0].turn_id)
    await story.turn("four")
    assert story.heard == ["one", "two", "four"]
    assert set(pushed_files(bare, branch_of(first))) == {"README.md", "one.txt", "two.txt", "four.txt"}
    await story.restore("0")
    await story.turn("five")
    assert story.heard == ["five"]
    assert set(pushed_files(bare, branch_of(first))) == {"README.md", "five.txt"}
    await client.log(story.session_id)


async def test_while_a_turn_runs_it_can_be_forked_and_not_restored(story: Story, client: Client, fake: FakeAnthropic) -> None:
    first = await story.turn("one")
    mark = fake.plays("slow", [use("bash", command="sleep 1000")], [say("Done.")])
    stream = client.execute(prompt=mark, session_id=story.session_id)
    async for frame in stream:
        if any(event.HasField("tool_call") for event in frame.events.events):
            turn_id = frame.events.events[0].turn_id
            break
    assert await refused(story.restore("1")) == (grpc.StatusCode.FAILED_PRECONDITION, "TURN_ACTIVE")
    assert await refused(story.fork(turn_id)) == (grpc.StatusCode.NOT_FOUND, "SNAPSHOT_NOT_FOUND")
    forked = await story.fork()
    assert forked.head_commit == first[-1].turn_completed.commit
    await client.call("Interrupt", pb.InterruptRequest(session_id=story.session_id))
    async for _ in stream:
        pass


async def test_a_session_without_a_turn_is_forked_from_its_base(story: Story, client: Client, git_server: GitServer) -> None:
    url = f"{git_server.url}/acme/app.git"
    made = (await client.call("CreateSession", pb.CreateSessionRequest(repository_url=url, title="Empty"))).session
    forked = await story.fork(session_id=made.session_id)
    assert (forked.title, forked.head_commit) == ("Empty", "")
    (event,) = await client.log(forked.session_id)
    assert event.session_forked == event_pb2.SessionForked(parent_session_id=made.session_id)
    assert await story.snapshots(forked.session_id) == []
    assert await refused(story.fork(session_id="no id")) == (grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")


async def test_a_fork_of_the_beginning_has_nothing_to_push(story: Story) -> None:
    await story.turn("one")
    forked = await story.fork("0")
    assert (bool(forked.head_commit), forked.unpushed_commit) == (True, "")
    await story.turn("two", forked.session_id)
    assert story.heard == ["two"]


async def test_both_work_where_the_disk_is_gone(
    database: DatabaseUrls, server_data_dir: Path, git_server: GitServer, fake: FakeAnthropic, bare: Path, changes: dict[str, Any]
) -> None:
    settings = settings_for(database, server_data_dir, git_server, **changes)
    async with in_process(settings) as (_, client):
        story = Story(client, fake, git_server)
        first = await story.turn("one")
        git_server.refuse_pushes("acme/app", "protected")
        await story.turn("two")
        # A fork's own bundle holds what was never pushed, too.
        forked = await story.fork()
        async with asyncio.timeout(20):
            while not all(each.stored for each in await story.snapshots(forked.session_id)):
                await asyncio.sleep(0.02)
    (git_server.root / "acme/app.git" / "hooks" / "pre-receive").unlink()
    for path in server_data_dir.iterdir():
        if path.name not in {"objects", "api-key"}:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    async with in_process(settings) as (_, client):
        story.client = client
        await story.restore(first[0].turn_id)
        three = await story.turn("three", forked.session_id)
        assert story.heard == ["one", "two", "three"]
        assert set(pushed_files(bare, branch_of(three))) == {"README.md", "one.txt", "two.txt", "three.txt"}
