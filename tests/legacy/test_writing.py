"""While both systems run, each session is in the old system's bucket after every turn, and comes back when that went on with it."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from legacy.conftest import OWNER, Move
from minio import Minio
from pydantic import SecretStr
from structlog.testing import capture_logs
from support.git_server import git
from support.legacy_archives import Old
from support.seaweedfs import S3Server
from support.treadle import branch_of, in_process, recording

from server.config import Settings
from server.db.legacy_store import PostgresLegacyStore, Unwritten
from server.git.repository import open_git
from server.kernel.errors import StoreUnavailable
from server.legacy import writing
from server.legacy.isolation import Reader
from server.legacy.writing import Writer, open_writer
from server.refusal import SettingsUnfit
from server.storage.s3_shared import SharedBucket, open_shared
from treadle.session.v1 import session_service_pb2 as pb

FILES = {
    "go.jsonl": recording({"write": "new.txt", "content": "by treadle\n"}),
    "stop.jsonl": recording({"write": "b.txt", "content": "b\n"}),
    "more.jsonl": recording({"write": "c.txt", "content": "c\n"}),
}


@pytest.fixture
def both(move: Move, s3: S3Server) -> Move:
    """With a bucket that both systems use."""
    bucket = f"sessions-{uuid.uuid4()}"
    s3.client().make_bucket(bucket)
    changes = {
        "s3_endpoint": s3.endpoint,
        "s3_access_key": s3.access_key,
        "s3_secret_key": SecretStr(s3.secret_key),
        "s3_secure": False,
        "legacy_bucket": bucket,
    }
    move.settings = Settings(**{name: getattr(move.settings, name) for name in move.settings.model_fields_set} | changes)
    move.git_server.commit("example/demo", FILES)
    return move


@pytest.fixture
async def bucket(both: Move) -> AsyncIterator[SharedBucket]:
    async with open_shared(both.settings, both.settings.legacy_bucket) as opened:
        yield opened


async def until_written(move: Move, session_id: str) -> str:
    """Until the archive is the session's newest commit; its version."""
    async with asyncio.timeout(30):
        while True:
            agreed = (await move.stores.legacy.standing(session_id)).agreed
            if agreed and agreed.commit == (await move.stores.sessions.get(OWNER, session_id)).head_commit:
                return agreed.version
            await asyncio.sleep(0.05)


def put(client: Minio, bucket: str, key: str, data: bytes) -> None:
    client.put_object(bucket, f"{key}/session.tar.gz", io.BytesIO(data), len(data))


async def test_the_old_system_goes_on_from_what_was_written_and_back(
    both: Move, bucket: SharedBucket, s3: S3Server, reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.legacy.writing.EVERY_SECONDS", 0.1)
    async with in_process(both.settings) as (_, client):
        seen = await client.run(repository_url=both.url, prompt="go", provider="replay", model="go.jsonl")
        session_id, branch = seen[0].session_id, branch_of(seen)
        version = await until_written(both, session_id)
        archive = tmp_path / "session.tar.gz"
        with archive.open("w+b") as file:
            await bucket.download(f"{session_id}/session.tar.gz", file, max_bytes=1 << 30)
        with archive.open("rb") as file:
            found = await reader.look(file)
        assert (found.layout, found.repository) == ("T2", "workspace/demo")
        said = json.loads(found.metadata)
        assert (said["sessionId"], said["branch"], said["github"]["baseBranch"]) == (session_id, branch, "main")

        # As the old worker does: by the path that the metadata name, with plain tar and plain git.
        work = tmp_path / "old"
        work.mkdir()
        subprocess.run(["tar", "-xzf", archive, "-C", work], check=True)
        tree = work / "workspace" / said["github"]["clonedPath"]
        assert git(tree, "status", "--porcelain") == ""
        assert git(tree, "rev-parse", "HEAD", "--abbrev-ref", "HEAD").splitlines() == [seen[-1].turn_completed.commit, branch]
        assert git(tree, "remote", "get-url", "origin") == both.url
        assert (tree / "new.txt").read_text() == "by treadle\n"
        assert all(path.stat().st_mode & 0o200 for path in (tree / ".git").rglob("*"))
        (tree / "old.txt").write_text("by the old system\n")
        subprocess.run(["tar", "-czf", archive, "-C", work, "."], check=True)
        put(s3.client(), both.settings.legacy_bucket, session_id, archive.read_bytes())

        told = (await both.bring(place=f"s3://{both.settings.legacy_bucket}"))[session_id]
        assert (told["status"], told["branch"]) == ("IMPORTED", branch)
        (mirror,) = (both.settings.data_dir / "mirrors").glob("*.git")
        assert git(mirror, "diff", "--name-status", f"{told['commit']}^", told["commit"]) == "A\told.txt"
        await client.run(session_id=session_id, prompt="on", provider="replay", model="stop.jsonl")
        assert await until_written(both, session_id) != version
    assert (await both.bring(place=f"s3://{both.settings.legacy_bucket}"))[session_id]["status"] == "UNCHANGED"


async def test_what_the_old_system_wrote_meanwhile_is_never_replaced(
    both: Move, bucket: SharedBucket, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.legacy.writing.EVERY_SECONDS", 0.1)
    with capture_logs() as logs:
        async with in_process(both.settings) as (_, client):
            seen = await client.run(repository_url=both.url, prompt="go", provider="replay", model="go.jsonl")
            session_id = seen[0].session_id
            await until_written(both, session_id)
            theirs = Old("T2", url=both.url, session=session_id).archive(tmp_path).read_bytes()
            put(s3.client(), both.settings.legacy_bucket, session_id, theirs)
            await client.run(session_id=session_id, prompt="on", provider="replay", model="stop.jsonl")
            async with asyncio.timeout(20):
                while not any(line["event"] == "legacy.archive_newer" for line in logs):
                    await asyncio.sleep(0.05)
    with io.BytesIO() as now:
        await bucket.download(f"{session_id}/session.tar.gz", now, max_bytes=1 << 30)
        assert now.getvalue() == theirs
    assert (await both.bring(place=f"s3://{both.settings.legacy_bucket}"))[session_id]["reason"] == "DIVERGED"


@pytest.mark.parametrize("turns", [1, 2], ids=["the first archive", "a later one"])
async def test_what_the_old_system_writes_while_an_archive_is_packed_stays(
    both: Move, bucket: SharedBucket, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    monkeypatch.setattr("server.legacy.writing.EVERY_SECONDS", 0.1)
    theirs, ours, times = Old("T2", url=both.url).archive(tmp_path).read_bytes(), writing.pack, 0

    def pack(session: Unwritten, *arguments: Any) -> Any:
        nonlocal times
        if (times := times + 1) == turns:
            put(s3.client(), both.settings.legacy_bucket, session.session_id, theirs)
        return ours(session, *arguments)

    monkeypatch.setattr("server.legacy.writing.pack", pack)
    with capture_logs() as logs:
        async with in_process(both.settings) as (_, client):
            session_id = (await client.call("CreateSession", pb.CreateSessionRequest(repository_url=both.url))).session.session_id
            for number, model in enumerate(list(FILES)[:turns]):
                if number:
                    await until_written(both, session_id)
                await client.run(session_id=session_id, prompt="go", provider="replay", model=model)
            async with asyncio.timeout(20):
                while not any(line["event"] == "legacy.archive_newer" for line in logs):
                    await asyncio.sleep(0.05)
    with io.BytesIO() as now:
        await bucket.download(f"{session_id}/session.tar.gz", now, max_bytes=1 << 30)
        assert now.getvalue() == theirs


async def test_two_servers_that_write_one_session_at_a_time_know_each_other_s_archive(
    both: Move, bucket: SharedBucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first dies when its archive is in the bucket, and the second is about to write another by then."""
    monkeypatch.setattr("server.legacy.writing.EVERY_SECONDS", 3600.0)
    async with in_process(both.settings) as (_, client):
        seen = await client.run(repository_url=both.url, prompt="go", provider="replay", model="go.jsonl")
    session_id, records = seen[0].session_id, both.stores.legacy
    first_intends, second_intends, first_wrote = asyncio.Event(), asyncio.Event(), asyncio.Event()
    intend, replace = PostgresLegacyStore.intend, SharedBucket.replace

    async def intended(*arguments: Any) -> None:
        await intend(*arguments)
        (second_intends if first_intends.is_set() else first_intends).set()

    async def replaced(*where: Any, over: Any) -> Any:
        await (first_wrote if second_intends.is_set() else second_intends).wait()
        return await replace(*where, over=over)

    async with open_git(both.settings) as repositories:
        one, two = (Writer(records, repositories, bucket, tmp_path) for _ in range(2))
        with monkeypatch.context() as patched:
            patched.setattr(PostgresLegacyStore, "intend", intended)
            patched.setattr(SharedBucket, "replace", replaced)
            with cut_before_it_agrees(monkeypatch) as cut:
                async with asyncio.timeout(60):
                    dies = asyncio.create_task(one.once())
                    await first_intends.wait()
                    lives = asyncio.create_task(two.once())
                    await cut.wait()
                    await dies
                    first_wrote.set()
                    await lives
        assert len(await records.intents(session_id)) == 2
        assert (await records.standing(session_id)).agreed is None
        await two.once()
        agreed = (await records.standing(session_id)).agreed
        there = await bucket.find(f"{session_id}/session.tar.gz")
        assert agreed is not None
        assert there is not None
        assert (agreed.commit, agreed.version) == (seen[-1].turn_completed.commit, there.version)
        assert await records.intents(session_id) == {}


async def test_a_store_that_does_not_heed_conditions_stops_the_start(both: Move, s3: S3Server, tmp_path: Path) -> None:
    def names() -> list[str]:
        return [str(entry.object_name) for entry in s3.client().list_objects(both.settings.legacy_bucket, recursive=True)]

    async with open_git(both.settings) as repositories:
        for header in ("If-Match", "If-None-Match"):
            async with dropping(header, s3.port) as port:
                settings = both.settings.model_copy(update={"s3_endpoint": f"127.0.0.1:{port}"})
                with pytest.raises(SettingsUnfit, match=rf"TREADLE_LEGACY_BUCKET.*`{header}`.*legacy import"):
                    async with open_writer(settings, both.stores.legacy, repositories, tmp_path):
                        pass
            assert names() == []
        async with open_writer(both.settings, both.stores.legacy, repositories, tmp_path):
            assert names() == []


async def test_a_store_that_takes_and_does_not_remove_is_tried_with_one_object(
    both: Move, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.legacy.writing.EVERY_SECONDS", 0.05)
    looked = asyncio.Event()

    async def once(writer: Writer) -> None:
        looked.set()

    monkeypatch.setattr(Writer, "once", once)
    with capture_logs() as logs:
        # Signed for another method, it is refused.
        async with changing(b"DELETE /", b"PUT /", s3.port) as port, open_git(both.settings) as repositories:
            settings = both.settings.model_copy(update={"s3_endpoint": f"127.0.0.1:{port}"})
            async with open_writer(settings, both.stores.legacy, repositories, tmp_path), asyncio.timeout(30):
                await looked.wait()
            async with open_shared(settings, settings.legacy_bucket) as bucket:
                await bucket.ignored_condition()
                assert await bucket.ignored_condition() == ""
    left = list(s3.client().list_objects(both.settings.legacy_bucket, recursive=True))
    assert len(left) == 2, "one of each"
    assert "legacy.probe_not_removed" in [line["event"] for line in logs]


async def test_a_store_that_is_down_at_the_start_is_tried_before_anything_is_written(
    both: Move, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.legacy.writing.EVERY_SECONDS", 0.05)
    bucket = f"later-{uuid.uuid4()}"
    with capture_logs() as logs:
        async with dropping("If-Match", s3.port) as port, open_git(both.settings) as repositories:
            settings = both.settings.model_copy(update={"s3_endpoint": f"127.0.0.1:{port}", "legacy_bucket": bucket})
            async with open_writer(settings, both.stores.legacy, repositories, tmp_path), asyncio.timeout(30):
                assert [line["event"] for line in logs if line["event"].startswith("legacy.")][:1] == ["legacy.store_not_tried"]
                s3.client().make_bucket(bucket)
                while not any(line["event"] == "legacy.writer_ended" for line in logs):
                    await asyncio.sleep(0.05)


@asynccontextmanager
async def dropping(header: str, port: int) -> AsyncIterator[int]:
    """The port of an object store that knows nothing of this header: a real one, behind something that calls it by another name."""
    name = f"\r\n{header}:".encode()
    async with changing(name, name.replace(b"If", b"No"), port) as changed:
        yield changed


@asynccontextmanager
async def changing(old: bytes, new: bytes, port: int) -> AsyncIterator[int]:
    """The port of something that passes on what it is asked, with that changed."""
    tasks: set[asyncio.Task[None]] = set()
    writers: list[asyncio.StreamWriter] = []

    async def passed(source: asyncio.StreamReader, target: asyncio.StreamWriter, change: Callable[[bytes], bytes] = bytes) -> None:
        while data := await source.read(65536):
            target.write(change(data))
        target.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        writers.extend((writer, back))
        asked = passed(reader, back, lambda data: data.replace(old, new))
        tasks.update(map(asyncio.create_task, (asked, passed(there, writer))))

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for each in writers:
        each.close()
    await asyncio.gather(*(each.wait_closed() for each in writers), return_exceptions=True)


@contextmanager
def cut_before_it_agrees(monkeypatch: pytest.MonkeyPatch) -> Iterator[asyncio.Event]:
    """The server writes to the bucket, and cannot say so; set as soon as that has happened."""
    happened = asyncio.Event()

    async def agree(*_: Any, **__: Any) -> None:
        happened.set()
        raise StoreUnavailable()

    with monkeypatch.context() as patched:
        patched.setattr(PostgresLegacyStore, "agree", agree)
        yield happened


async def test_a_server_that_was_cut_short_between_bucket_and_database_knows_its_own_archive(
    both: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes first: the next look of a server, or an import."""
    monkeypatch.setattr("server.legacy.writing.EVERY_SECONDS", 0.1)
    bucket = f"s3://{both.settings.legacy_bucket}"
    seen = None
    for model in ("go.jsonl", "stop.jsonl"):  # the first archive of a session, and a later one
        with cut_before_it_agrees(monkeypatch) as written:
            async with in_process(both.settings) as (_, client):
                where = {"session_id": seen[0].session_id} if seen else {"repository_url": both.url}
                seen = await client.run(prompt="go", provider="replay", model=model, **where)
                async with asyncio.timeout(20):
                    await written.wait()
        async with in_process(both.settings):
            await until_written(both, seen[0].session_id)
    assert seen is not None
    with cut_before_it_agrees(monkeypatch) as written:
        async with in_process(both.settings) as (_, client):
            seen = await client.run(session_id=seen[0].session_id, prompt="go", provider="replay", model="more.jsonl")
            async with asyncio.timeout(20):
                await written.wait()
    told = (await both.bring(place=bucket))[seen[0].session_id]
    assert (told["status"], told["commit"]) == ("UNCHANGED", seen[-1].turn_completed.commit)
    async with in_process(both.settings):
        await until_written(both, seen[0].session_id)
