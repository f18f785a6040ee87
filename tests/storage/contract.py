"""What every object store promises; each adapter's test subclasses it and brings the store."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from server.kernel.errors import ObjectCorrupt, ObjectNotFound
from server.kernel.ports.object_store import ObjectStore

MIB = 1024 * 1024
LARGE = 64 * MIB

HOSTILE_KEYS = [
    "",
    "/",
    "/etc/passwd",
    "..",
    "../outside",
    "a/../../outside",
    "a/..",
    "a/./b",
    "./a",
    "a//b",
    "a/",
    ".incoming/x",
    "a/.hidden",
    "a\\b",
    "a\0b",
    "a\nb",
    "a b",
    "a?versionId=1",
    "a%2e%2e",
    "ä",
    "a" * 513,
    "/".join(["a" * 100] * 6),
]


async def content(store: ObjectStore, key: str, sha256: str) -> bytes:
    return b"".join([piece async for piece in store.get(key, sha256=sha256)])


async def keys(store: ObjectStore, prefix: str = "") -> list[str]:
    return [key async for key in store.list(prefix)]


def file_of(folder: Path, data: bytes) -> Path:
    path = folder / "source"
    path.write_bytes(data)
    return path


def large_file(folder: Path) -> Path:
    path = folder / "large"
    with path.open("wb") as file:
        for _ in range(LARGE // MIB):
            file.write(os.urandom(MIB))
    return path


@contextlib.asynccontextmanager
async def longest_pause() -> AsyncIterator[list[float]]:
    """Measures for how long the event loop did not come round; the list's one item, in seconds, counts up."""
    longest = [0.0]

    async def tick() -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.001)
            now = time.monotonic()
            longest[0] = max(longest[0], now - last)
            last = now

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0)  # else one that blocks from its first line is not seen
    try:
        yield longest
    finally:
        ticking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ticking


class ObjectStoreContract:
    """Subclasses give the fixture `store` and `damage`."""

    async def damage(self, store: ObjectStore, key: str, data: bytes) -> None:
        """Put other bytes in the place of a stored object's, behind the store's back."""
        raise NotImplementedError

    @pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 9 * MIB])
    async def test_gives_back_what_was_put(self, store: ObjectStore, tmp_path: Path, size: int) -> None:
        data = os.urandom(size)
        stored = await store.put("tenant/session/1.bundle", file_of(tmp_path, data))
        assert (stored.key, stored.size, stored.sha256) == ("tenant/session/1.bundle", size, hashlib.sha256(data).hexdigest())
        assert await content(store, stored.key, stored.sha256) == data

    async def test_a_missing_object_is_not_found(self, store: ObjectStore) -> None:
        with pytest.raises(ObjectNotFound):
            await content(store, "tenant/nothing", "0" * 64)

    async def test_a_folder_is_no_object(self, store: ObjectStore, tmp_path: Path) -> None:
        await store.put("tenant/session/1", file_of(tmp_path, b"x"))
        with pytest.raises(ObjectNotFound):
            await content(store, "tenant/session", "0" * 64)
        await store.delete("tenant/session/1/below")
        assert await keys(store) == ["tenant/session/1"]

    async def test_damaged_bytes_are_refused_at_the_end(self, store: ObjectStore, tmp_path: Path) -> None:
        data = os.urandom(3 * MIB)
        stored = await store.put("tenant/a", file_of(tmp_path, data))
        await self.damage(store, stored.key, data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(ObjectCorrupt):
            await content(store, stored.key, stored.sha256)

    async def test_bytes_cut_short_are_refused(self, store: ObjectStore, tmp_path: Path) -> None:
        stored = await store.put("tenant/a", file_of(tmp_path, b"0123456789"))
        await self.damage(store, stored.key, b"01234")
        with pytest.raises(ObjectCorrupt):
            await content(store, stored.key, stored.sha256)

    async def test_putting_again_replaces(self, store: ObjectStore, tmp_path: Path) -> None:
        await store.put("tenant/a", file_of(tmp_path, b"old and longer"))
        new = await store.put("tenant/a", file_of(tmp_path, b"new"))
        assert await content(store, "tenant/a", new.sha256) == b"new"
        assert await keys(store) == ["tenant/a"]

    async def test_a_reader_sees_the_old_or_the_new_object_never_a_mixture(self, store: ObjectStore, tmp_path: Path) -> None:
        files = [tmp_path / "0", tmp_path / "1"]
        for number, file in enumerate(files):
            file.write_bytes(bytes([number]) * 12 * MIB)
        known = {(await store.put("tenant/a", file)).sha256 for file in files}

        async def read() -> str:
            digest = hashlib.sha256()
            with contextlib.suppress(ObjectCorrupt):  # it cannot know which of the two is there
                async for piece in store.get("tenant/a", sha256="0" * 64):
                    digest.update(piece)
            return digest.hexdigest()

        for file in files:
            seen, _ = await asyncio.gather(read(), store.put("tenant/a", file))
            assert seen in known

    async def test_delete_removes_and_may_be_repeated(self, store: ObjectStore, tmp_path: Path) -> None:
        stored = await store.put("tenant/a", file_of(tmp_path, b"x"))
        await store.delete("tenant/a")
        await store.delete("tenant/a")
        assert await keys(store) == []
        with pytest.raises(ObjectNotFound):
            await content(store, "tenant/a", stored.sha256)

    async def test_lists_keys_in_order(self, store: ObjectStore, tmp_path: Path) -> None:
        source = file_of(tmp_path, b"x")
        expected = sorted(["t/a-b", "t/a.b", "t/a/b", "t/a/c/d", "t/a0", "t/A", "t/_", "t/ab/c", "t/b", "u/a", "t2/a", "t-2/a"])
        for key in reversed(expected):
            await store.put(key, source)
        assert await keys(store) == expected
        for prefix in ["t/", "t", "t/a", "t/a/", "t/a/c/d", "t/a/c/d/e", "v", "t/ab/"]:
            assert await keys(store, prefix) == [key for key in expected if key.startswith(prefix)], prefix

    async def test_lists_nothing_where_nothing_is(self, store: ObjectStore) -> None:
        assert await keys(store) == []
        assert await keys(store, "tenant/session/") == []

    @pytest.mark.parametrize("key", HOSTILE_KEYS)
    async def test_refuses_hostile_keys(self, store: ObjectStore, tmp_path: Path, key: str) -> None:
        source = file_of(tmp_path, b"x")
        with pytest.raises(ValueError, match="malformed"):
            await store.put(key, source)
        with pytest.raises(ValueError, match="malformed"):
            await content(store, key, "0" * 64)
        with pytest.raises(ValueError, match="malformed"):
            await store.delete(key)

    @pytest.mark.parametrize("prefix", ["/", "../", "a/../", "a//", ".", "a\0", "a" * 513])
    async def test_refuses_hostile_prefixes(self, store: ObjectStore, prefix: str) -> None:
        with pytest.raises(ValueError, match="malformed"):
            await keys(store, prefix)

    async def test_a_missing_source_is_the_callers_fault(self, store: ObjectStore, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            await store.put("tenant/a", tmp_path / "nothing")
        assert await keys(store) == []

    async def test_a_large_object_needs_little_memory(self, store: ObjectStore, tmp_path: Path) -> None:
        source = large_file(tmp_path)
        tracemalloc.start()
        try:
            stored = await store.put("tenant/large", source)
            read = 0
            async for piece in store.get(stored.key, sha256=stored.sha256):
                read += len(piece)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert read == stored.size == LARGE
        assert peak < LARGE / 2

    async def test_a_large_object_does_not_block_the_event_loop(self, store: ObjectStore, tmp_path: Path) -> None:
        source = large_file(tmp_path)
        async with longest_pause() as longest:
            started = time.monotonic()
            stored = await store.put("tenant/large", source)
            async for _ in store.get(stored.key, sha256=stored.sha256):
                pass
            took = time.monotonic() - started
        assert longest[0] < max(0.1, took / 4)

    async def test_a_reader_may_leave_early(self, store: ObjectStore, tmp_path: Path) -> None:
        stored = await store.put("tenant/a", file_of(tmp_path, bytes(5 * MIB)))
        for _ in range(20):  # more often than a store has threads or connections
            async with aclosing(store.get(stored.key, sha256=stored.sha256)) as pieces:  # type: ignore[type-var]
                assert await anext(pieces)
        assert len(await content(store, stored.key, stored.sha256)) == stored.size

    async def test_a_cancelled_put_leaves_nothing(self, store: ObjectStore, tmp_path: Path) -> None:
        source = large_file(tmp_path)
        put = asyncio.create_task(store.put("tenant/a", source))
        await asyncio.sleep(0)
        put.cancel()
        with pytest.raises(asyncio.CancelledError):
            await put
        source.unlink()
        assert await keys(store) == []

    async def test_many_at_a_time(self, store: ObjectStore, tmp_path: Path) -> None:
        sources = [tmp_path / str(number) for number in range(24)]
        for source in sources:
            source.write_bytes(os.urandom(64 * 1024))
        stored = await asyncio.gather(*(store.put(f"tenant/{source.name}", source) for source in sources))
        read = await asyncio.gather(*(content(store, each.key, each.sha256) for each in stored))
        assert read == [source.read_bytes() for source in sources]
