"""The filesystem store: the contract, and what a crash leaves."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from storage.contract import MIB, ObjectStoreContract, content, file_of, keys

from server.config import Settings
from server.kernel.errors import ObjectStoreUnavailable
from server.kernel.ports.object_store import ObjectStore
from server.storage.filesystem import open_filesystem

PUT = """
import asyncio, sys
from pathlib import Path
from server.config import Settings
from server.storage.filesystem import open_filesystem

async def main() -> None:
    async with open_filesystem(Settings(data_dir=Path(sys.argv[1]))) as store:
        await store.put("tenant/a", Path(sys.argv[2]))

asyncio.run(main())
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data")


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[ObjectStore]:
    async with open_filesystem(settings) as store:
        yield store


class TestFilesystem(ObjectStoreContract):
    async def damage(self, store: ObjectStore, key: str, data: bytes) -> None:
        store._root.joinpath(key).write_bytes(data)


async def test_a_writer_killed_half_way_leaves_the_old_object(settings: Settings, tmp_path: Path) -> None:
    async with open_filesystem(settings) as store:
        old = await store.put("tenant/a", file_of(tmp_path, b"old"))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = subprocess.Popen([sys.executable, "-c", PUT, str(settings.data_dir), str(pipe)])
    with pipe.open("wb") as source:
        source.write(bytes(8 * MIB))  # returns when the writer has read all but what a pipe holds; the end never comes
        source.flush()
        (half,) = (settings.data_dir / "objects" / ".incoming").iterdir()
        assert half.stat().st_size > 6 * MIB
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    async with open_filesystem(settings) as store:
        assert await content(store, "tenant/a", old.sha256) == b"old"
        assert await keys(store) == ["tenant/a"]
    assert not half.exists()


async def test_a_put_cancelled_half_way_stops_and_leaves_nothing(settings: Settings, store: ObjectStore, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    put = asyncio.create_task(store.put("tenant/a", pipe))
    source = await asyncio.to_thread(pipe.open, "wb", buffering=0)
    await asyncio.to_thread(source.write, bytes(4 * MIB))
    put.cancel()
    for _ in range(10):  # the cancel passes a few callbacks; then it waits for its thread, which waits for the pipe
        await asyncio.sleep(0)
    source.close()
    with pytest.raises(asyncio.CancelledError):
        await put
    assert await keys(store) == []
    assert list((settings.data_dir / "objects" / ".incoming").iterdir()) == []


async def test_an_object_that_is_a_folder_of_another_is_refused(store: ObjectStore, tmp_path: Path) -> None:
    source = file_of(tmp_path, b"x")
    await store.put("tenant/a", source)
    with pytest.raises(ObjectStoreUnavailable):
        await store.put("tenant/a/b", source)
    assert await keys(store) == ["tenant/a"]


async def test_a_data_directory_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(ObjectStoreUnavailable, match="cannot be used"):
        async with open_filesystem(Settings(data_dir=tmp_path / "file")):
            pass


async def test_only_the_server_may_look(settings: Settings, store: ObjectStore, tmp_path: Path) -> None:
    await store.put("tenant/session/a", file_of(tmp_path, b"x"))
    objects = settings.data_dir / "objects"
    for path in [objects, objects / "tenant", objects / "tenant/session", objects / "tenant/session/a"]:
        assert path.stat().st_mode & 0o077 == 0
