"""The work of a running turn is kept while it runs: it is opened as any other state, and outlives the server, its disk and the worker."""

from __future__ import annotations

import asyncio
import io
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from support.git_server import GitServer, git
from support.git_server import git_server as serving
from support.log_checker import check_log
from support.nursery import Nursery
from support.postgres import open_directory
from support.seaweedfs import S3Server
from support.treadle import Client, Killable, branch_of, connected, error_info, events_of, in_process, recording, settings_for

from server.config import Settings
from server.embedded.postgres_home import DatabaseUrls
from server.kernel.supervisor import checkpoint, publish
from server.workers.slot import slots
from treadle.file.v1.file_service_pb2 import ReadFileRequest
from treadle.file.v1.file_service_pb2_grpc import FileServiceStub
from treadle.session.v1 import event_pb2
from treadle.session.v1 import session_service_pb2 as pb
from treadle.session.v1.snapshot_pb2 import SNAPSHOT_KIND_CHECKPOINT, Snapshot

WORK = recording(
    {"write": "zero.txt", "content": "0\n"},
    {"wait_ms": 700},
    {"write": "one.txt", "content": "1\n"},
    {"wait_ms": 700},
    {"write": "two.txt", "content": "2\n"},
    {"wait_ms": 90_000},
    {"say": "done"},
)

LARGE = 1 << 20
STEPS = ("one", "two", "three", "four")


def step(name: str) -> list[dict[str, str]]:
    """A file that is there all at once; then the agent waits."""
    content = f"head -c {LARGE} /dev/urandom" if name == "one" else f"echo {name}"
    return [{"run": f"{content} >.git/{name} && mv .git/{name} {name}.txt; until test -e .git/go-{name}; do sleep 0.02; done"}]


@pytest.fixture
def git_server(tmp_path: Path) -> Iterator[GitServer]:
    with serving(tmp_path / "host") as server:
        steps = recording(*(each for name in STEPS for each in step(name)))
        following = recording({"run": "ls"}, {"write": "three.txt", "content": "3\n"})
        server.create("acme/app", {"work.jsonl": WORK, "next.jsonl": following, "steps.jsonl": steps})
        yield server


@pytest.fixture
def second_dir() -> Iterator[Path]:
    with open_directory() as directory:
        yield directory / "data"


@pytest.fixture
def kept_in(database: DatabaseUrls, git_server: GitServer, s3: S3Server, server_data_dir: Path) -> Any:
    def settings(data_dir: Path, **changes: Any) -> Settings:
        return settings_for(
            database,
            data_dir,
            git_server,
            **{
                "object_store": "s3",
                "s3_endpoint": s3.endpoint,
                "s3_access_key": s3.access_key,
                "s3_secret_key": s3.secret_key,
                "s3_secure": False,
                "s3_bucket": f"test-{server_data_dir.parent.name.lower().replace('_', '-')}-bucket",
                "lease_seconds": 3.0,
                "checkpoint_seconds": 0.2,
                "worker_orphan_seconds": 1.0,
                **changes,
            },
        )

    return settings


async def working(client: Client, git_server: GitServer, until: str) -> AsyncIterator[event_pb2.Event]:
    """The events of a turn up to the checkpoint that has this file."""
    stream = client.execute(repository_url=f"{git_server.url}/acme/app.git", prompt="go", provider="replay", model="work.jsonl")
    async for frame in stream:
        for event in frame.events.events:
            yield event
            if event.git_updated.action == event_pb2.GIT_ACTION_CHECKPOINTED:
                newest, *_ = await snapshots(client, event.session_id)
                if await read(client, event.session_id, until, at=str(newest.number)):
                    return


async def read(client: Client, session_id: str, path: str, *, at: str) -> bytes | None:
    stub = FileServiceStub(client.channel)
    try:
        frames = stub.ReadFile(ReadFileRequest(session_id=session_id, path=path, at=at), metadata=client.metadata, timeout=60)
        return b"".join([frame.data async for frame in frames])
    except grpc.aio.AioRpcError as error:
        assert error_info(error)[1] == "FILE_NOT_FOUND"
        return None


async def spoil(database: DatabaseUrls, s3: S3Server, bucket: str, session_id: str, number: int, trouble: str) -> None:
    """A checkpoint is damaged in the object store, or its machine was lost before that had it."""
    admin = await asyncpg.connect(database.owner)
    try:
        which = (session_id, number)
        if trouble == "damaged":
            key = await admin.fetchval("SELECT object_key FROM snapshots WHERE session_id = $1 AND number = $2", *which)
            s3.client().put_object(bucket, key, io.BytesIO(b"damaged"), len(b"damaged"))
        else:
            reset = "UPDATE snapshots SET state = 'PENDING', object_key = '' WHERE session_id = $1 AND number = $2"
            assert await admin.execute(reset, *which) == "UPDATE 1"
    finally:
        await admin.close()


async def snapshots(client: Client, session_id: str) -> list[Snapshot]:
    return list((await client.call("ListSnapshots", pb.ListSnapshotsRequest(session_id=session_id))).snapshots)


async def test_a_running_turn_can_be_read_and_forked_as_of_its_checkpoints(
    kept_in: Any, server_data_dir: Path, git_server: GitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    defects = [RuntimeError("a defect")]

    async def read_back(*of: Any) -> Any:
        if defects:
            raise defects.pop()
        return await publish.read_back(*of)

    monkeypatch.setattr(checkpoint, "PAUSES", 0)
    monkeypatch.setattr(checkpoint, "read_back", read_back)  # the first one fails, and stops nothing
    async with in_process(kept_in(server_data_dir)) as (_, client):
        async with aclosing(working(client, git_server, "two.txt")) as events:
            seen = [event async for event in events]
        assert not defects
        session_id, sha = seen[0].session_id, seen[-1].git_updated.sha
        newest, *older = await snapshots(client, session_id)
        assert (newest.kind, newest.commit, newest.turn_id) == (SNAPSHOT_KIND_CHECKPOINT, sha, seen[0].turn_id)
        assert not any(each.expired for each in (newest, *older[:1]))
        fork = (await client.call("ForkSession", pb.ForkSessionRequest(session_id=session_id, at=str(newest.number)))).session
        assert await read(client, fork.session_id, "one.txt", at="") == b"1\n"
        await client.call("Interrupt", pb.InterruptRequest(session_id=session_id))
        end = (await events_of(client.resume(session_id, seen[-1].seq)))[-1].turn_completed
        # The turn's commit is the one that the checkpoint was.
        assert (end.status, end.commit, end.pushed) == (event_pb2.TURN_STATUS_INTERRUPTED, sha, True)
        await client.log(session_id)
        ended = await client.run(session_id=fork.session_id, prompt="go on", provider="replay", model="next.jsonl")
        assert ended[-1].turn_completed.pushed
        bare = git_server.root / "acme/app.git"
        assert {"one.txt", "two.txt", "three.txt"} <= set(git(bare, "ls-tree", "--name-only", ended[-1].turn_completed.commit).split())


async def test_what_a_lost_machine_had_done_is_published_up_to_its_last_checkpoint(
    kept_in: Any, server_data_dir: Path, second_dir: Path, tmp_path: Path, git_server: GitServer, nursery: Nursery
) -> None:
    first = Killable(kept_in(server_data_dir), tmp_path / "first.log", nursery=nursery)
    try:
        await first.start()
        async with connected(first.address, first.key) as client:
            async with aclosing(working(client, git_server, "one.txt")) as events:
                seen = [event async for event in events]
            session_id = seen[0].session_id
            async with asyncio.timeout(20):
                while not (newest := (await snapshots(client, session_id))[0]).stored:
                    await asyncio.sleep(0.02)
        await first.stop(kill=True)
        shutil.rmtree(server_data_dir)
        async with in_process(kept_in(second_dir)) as (_, client):
            events = await events_of(client.resume(session_id))
            check_log(events, ended=True)
            end = events[-1].turn_completed
            assert (end.status, end.code) == (event_pb2.TURN_STATUS_FAILED, event_pb2.TURN_CODE_WORKER_LOST)
            assert (end.commit, end.pushed) == (newest.commit, True)
            (told,) = [event.error.message for event in events if event.error.code == "WORKSPACE"]
            assert "its work is kept up to the checkpoint of " in told
            after = await client.run(session_id=session_id, prompt="go on", provider="replay", model="next.jsonl")
            bare = git_server.root / "acme/app.git"
            assert git(bare, "rev-parse", f"{after[-1].turn_completed.commit}^") == newest.commit
            assert await read(client, session_id, "one.txt", at="") == b"1\n"
    finally:
        await first.stop()


@pytest.mark.parametrize("trouble", ["", "pending", "damaged"])
async def test_a_checkpoint_stores_what_came_after_the_one_before(
    kept_in: Any,
    database: DatabaseUrls,
    server_data_dir: Path,
    second_dir: Path,
    git_server: GitServer,
    s3: S3Server,
    monkeypatch: pytest.MonkeyPatch,
    *,
    trouble: str,
) -> None:
    monkeypatch.setattr(checkpoint, "PAUSES", 0)
    monkeypatch.setattr(checkpoint, "LONGEST_CHAIN", 2)
    settings, made = kept_in(server_data_dir), list[Snapshot]()
    async with in_process(settings) as (_, client):
        asked = {"repository_url": f"{git_server.url}/acme/app.git", "prompt": "go", "provider": "replay", "model": "steps.jsonl"}
        stream = client.execute(**asked)
        while not (frame := await stream.read()).events.events:
            pass
        session_id = frame.events.events[0].session_id
        for number, name in enumerate(STEPS, 1):
            async with asyncio.timeout(40):
                while len(found := await snapshots(client, session_id)) < number or not found[0].stored:
                    await asyncio.sleep(0.02)
            made.append(found[0])
            if name != STEPS[-1]:
                (slot,) = slots(settings.slots_dir)
                (slot.workspace / ".git" / f"go-{name}").touch()
        stream.cancel()
    base = git(git_server.root / "acme/app.git", "rev-parse", "main")
    assert [each.parent for each in made] == [base, made[0].commit, base, made[2].commit]
    assert [each.size < 4096 for each in made] == [False, True, False, True], [each.size for each in made]
    assert [each.number for each in found if not each.expired] == [4, 3], "nothing stands on the others"
    shutil.rmtree(server_data_dir)
    if trouble:
        await spoil(database, s3, settings.s3_bucket, session_id, made.pop().number, trouble)
    async with in_process(kept_in(second_dir, import_retry_seconds=1)) as (_, client):
        end = (await events_of(client.resume(session_id)))[-1].turn_completed
        assert (end.code, end.commit, end.pushed) == (event_pb2.TURN_CODE_WORKER_LOST, made[-1].commit, True)
    bare = git_server.root / "acme/app.git"
    assert {f"{name}.txt" for name in STEPS[: len(made)]} <= set(git(bare, "ls-tree", "--name-only", end.commit).split())
    assert git(bare, "cat-file", "-s", f"{end.commit}:one.txt") == str(LARGE)


@pytest.mark.parametrize("gone_on", [True, False])
async def test_what_a_lost_machine_had_done_after_its_checkpoint_is_published_when_it_comes_back(
    kept_in: Any, server_data_dir: Path, second_dir: Path, tmp_path: Path, git_server: GitServer, nursery: Nursery, *, gone_on: bool
) -> None:
    first = Killable(kept_in(server_data_dir), tmp_path / "first.log", nursery=nursery)
    try:
        await first.start()
        async with connected(first.address, first.key) as client:
            async with aclosing(working(client, git_server, "two.txt")) as events:
                seen = [event async for event in events]
            session_id = seen[0].session_id
            async with asyncio.timeout(20):
                while not (newest := (await snapshots(client, session_id))[0]).stored:
                    await asyncio.sleep(0.02)
        await first.stop(kill=True)
    finally:
        await first.stop()
    (written,) = server_data_dir.rglob("two.txt")
    written.with_name("later.txt").write_text("later\n")
    away = server_data_dir.with_name("away")
    server_data_dir.rename(away)
    async with in_process(kept_in(second_dir)) as (_, client):
        end = (await events_of(client.resume(session_id)))[-1].turn_completed
        assert (end.code, end.commit) == (event_pb2.TURN_CODE_WORKER_LOST, newest.commit)
        if gone_on:
            await client.run(session_id=session_id, prompt="go on", provider="replay", model="next.jsonl")
    if server_data_dir.exists():
        shutil.rmtree(server_data_dir)
    away.rename(server_data_dir)
    branch = f"{branch_of(seen)}-turn-1" if gone_on else branch_of(seen)
    async with in_process(kept_in(server_data_dir)) as (server, client), asyncio.timeout(40):
        # A session at rest has nothing to follow.
        while await server.launcher.leftovers():
            await asyncio.sleep(0.05)
        told = [event.git_updated for event in await client.log(session_id) if event.HasField("git_updated") and not event.turn_id]
    assert [(each.action, each.branch, each.sha) for each in told] == [
        (event_pb2.GIT_ACTION_COMMITTED, branch, told[0].sha), (event_pb2.GIT_ACTION_PUSHED, branch, told[0].sha),
    ]  # fmt: skip
    assert told[0].files_changed == 1
    bare = git_server.root / "acme/app.git"
    assert git(bare, "rev-parse", branch, f"{branch}^").split() == [told[0].sha, newest.commit]
    assert git(bare, "show", f"{branch}:later.txt") == "later"
