"""The machine of a turn is lost, whose worker was a container: the turn ends with its last checkpoint, on another machine."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from support.containers import containers_of, no_containers_left, spawner_process, spawner_settings
from support.git_server import GitServer, git
from support.git_server import git_server as serving
from support.log_checker import check_log
from support.postgres import open_directory, relayed
from support.requirements import require
from support.seaweedfs import S3Server
from support.treadle import Client, Killable, connected, error_info, events_of, in_process, recording, settings_for

from server.config import Settings
from server.embedded.postgres_home import DatabaseUrls
from server.spawner.settings import SpawnerSettings
from treadle.file.v1.file_service_pb2 import ReadFileRequest
from treadle.file.v1.file_service_pb2_grpc import FileServiceStub
from treadle.session.v1 import event_pb2
from treadle.session.v1 import session_service_pb2 as pb
from treadle.session.v1.snapshot_pb2 import SNAPSHOT_KIND_CHECKPOINT

pytestmark = pytest.mark.timeout(300)

LESSER = 10_000
MEMORY = {"worker_memory_mib": 256}
# What it leaves is as odd as its agent can make it, and goes on changing under whoever reads it.
HOSTILE = """
mkfifo pipe; ln -s /etc/passwd passwd; ln -s ../secret up; mkdir real; echo real >real/file; mkdir -m 0 closed
(umask 077; echo private >private.txt)
(while :; do rm -rf moving; mkdir moving; echo x >moving/passwd; rm -rf moving; ln -s /etc moving; ln -sfn ../.. up; done) &
(while :; do rm -f turning; echo x >turning; rm -f turning; mkfifo turning; done) &
"""
WORK = recording({"run": f"exec >/dev/null 2>&1 </dev/null; {HOSTILE}"}, {"write": "made.txt", "content": "made\n"}, {"wait_ms": 40_000})


@dataclass(frozen=True)
class Machine:
    """A server and a spawner, with all that they have on disk."""

    settings: Settings
    spawner: SpawnerSettings
    log: Path


@pytest.fixture
def git_server(tmp_path: Path) -> Any:
    with serving(tmp_path / "host") as server:
        server.create("acme/app", {"work.jsonl": WORK, "next.jsonl": recording({"write": "next.txt", "content": "next\n"})})
        yield server


@pytest.fixture
def machine(database: DatabaseUrls, git_server: GitServer, s3: S3Server, tmp_path: Path) -> Any:
    bucket = {
        "object_store": "s3",
        "s3_endpoint": s3.endpoint,
        "s3_access_key": s3.access_key,
        "s3_secret_key": s3.secret_key,
        "s3_secure": False,
        "s3_bucket": f"test-{tmp_path.name.lower().replace('_', '-')}-bucket",
    }

    @asynccontextmanager
    async def made(name: str, user: int) -> AsyncIterator[Machine]:
        """With a spawner that runs. `user`: the server's; the spawner is root."""
        async with AsyncExitStack() as stack:
            place = stack.enter_context(open_directory())
            data = place / "data"
            data.mkdir(mode=0o700)
            os.chown(data, user, user)
            shared: dict[str, Any] = {"worker_root": place / "workers", "spawner_socket": place / "spawner.sock", **MEMORY}
            spawner = spawner_settings(data, **shared, **({"server_user": str(user)} if user else {}))
            stack.enter_context(no_containers_left(spawner.slots_dir))
            urls = database if user == os.geteuid() else await stack.enter_async_context(relayed(database, place))
            settings = settings_for(
                urls, data, git_server, launcher="docker", lease_seconds=3.0, checkpoint_seconds=0.2, **bucket, **shared
            )
            await stack.enter_async_context(spawner_process(spawner, tmp_path / f"{name}-spawner.log"))
            yield Machine(settings, spawner, tmp_path / f"{name}.log")

    return made


async def worked(client: Client, url: str) -> str:
    """A session whose turn has done all its work, and a stored checkpoint has it: its loops go on, and with them checkpoints."""
    stream = client.execute(repository_url=url, prompt="go", provider="replay", model="work.jsonl")
    while not (frame := await stream.read()).events.events:
        pass
    session_id = frame.events.events[0].session_id
    stream.cancel()
    async with asyncio.timeout(120):
        while True:
            snapshots = (await client.call("ListSnapshots", pb.ListSnapshotsRequest(session_id=session_id))).snapshots
            for each in snapshots:
                if each.stored and each.kind == SNAPSHOT_KIND_CHECKPOINT and await has(client, session_id, "made.txt", at=each.number):
                    return session_id
            await asyncio.sleep(0.02)


async def has(client: Client, session_id: str, path: str, *, at: int) -> bool:
    request = ReadFileRequest(session_id=session_id, path=path, at=str(at))
    try:
        return [frame async for frame in FileServiceStub(client.channel).ReadFile(request, metadata=client.metadata, timeout=60)] != []
    except grpc.aio.AioRpcError as error:
        if error_info(error)[1] not in {"FILE_NOT_FOUND", "SNAPSHOT_EXPIRED"}:
            raise
        return False


async def last_stored(database: DatabaseUrls, session_id: str) -> str:
    """The commit of what the turn is to end with."""
    admin = await asyncpg.connect(database.owner)
    try:
        of = "session_id = $1 AND kind = 'CHECKPOINT' AND state = 'STORED'"
        return str(await admin.fetchval(f"SELECT commit FROM snapshots WHERE {of} ORDER BY number DESC LIMIT 1", session_id))
    finally:
        await admin.close()


@pytest.mark.parametrize("user", [0, LESSER], ids=["root", "a lesser user"])
async def test_what_a_container_had_done_is_published_up_to_the_last_checkpoint(
    machine: Any, git_server: GitServer, database: DatabaseUrls, *, user: int
) -> None:
    require(os.geteuid() == 0, "root", "run the tests as root")
    url, bare = f"{git_server.url}/acme/app.git", git_server.root / "acme/app.git"
    async with machine("lost", user) as lost:
        server = Killable(lost.settings, lost.log, user=user or None)
        await server.start()
        try:
            async with connected(server.address, server.key) as client:
                session_id = await worked(client, url)
        finally:
            await server.stop(kill=True)
        assert len(containers_of(lost.spawner.slots_dir)) == 1
    assert not lost.settings.data_dir.exists()
    checkpoint = await last_stored(database, session_id)
    async with machine("next", 0) as other, in_process(other.settings) as (_, client):
        events = await events_of(client.resume(session_id))
        check_log(events, ended=True)
        end = events[-1].turn_completed
        assert (end.status, end.code, end.pushed) == (event_pb2.TURN_STATUS_FAILED, event_pb2.TURN_CODE_WORKER_LOST, True)
        assert end.commit == checkpoint
        after = (await client.run(session_id=session_id, prompt="go on", provider="replay", model="next.jsonl"))[-1].turn_completed
        assert git(bare, "rev-parse", f"{after.commit}^") == checkpoint
    assert git(bare, "show", f"{checkpoint}:made.txt") == "made"
    assert git(bare, "show", f"{checkpoint}:real/file") == "real"
    files = git(bare, "ls-tree", "-r", "--name-only", checkpoint).split()
    # What its owner alone may read, the server reads as that user, where it is root.
    assert ("private.txt" in files) == (user == 0)
    assert not {"pipe", "secret"} & {*files}
    assert not [name for name in files if "root:" in git(bare, "show", f"{checkpoint}:{name}")]
