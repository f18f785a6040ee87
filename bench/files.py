"""FileService over gRPC, on sessions of three sizes: what a person waits for who reads and edits between turns."""

from __future__ import annotations

import asyncio
import gzip
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc

from bench import limits
from bench.report import percentile, spread
from bench.stack import CHANNEL, Stack, events_in, stack
from treadle.file.v1 import file_service_pb2 as pb
from treadle.file.v1 import file_service_pb2_grpc
from treadle.session.v1 import session_service_pb2, session_service_pb2_grpc, snapshot_pb2

REPEATS = 60
ARCHIVES = 3
FILE_BYTES = 25 * 1024
EDIT_BYTES = 5 * 1024
SIZES = {
    1.3: {"edit": "951", "read": "92", "list": "92", "download": "54"},
    25.0: {"edit": "7,370", "read": "352", "list": "352", "download": "234"},
    101.0: {"edit": "50,059", "read": "1,075", "list": "2,041", "download": "2,017"},
}
"""MiB of files, and what the system that Treadle replaces took for them, in ms (p50; LEGACY.md)."""
PACES = {0.0: 60, 0.25: 60, 1.0: 30}
"""Seconds from one edit's answer to the next edit, and how many of them. What an edit leaves to be done meets those that follow it."""
PACED_MIB = 25.0
AIMS = {"edit": "aim 20", "read": "aim 10", "list": "aim 20", "download": ""}


async def measure() -> list[tuple[str, str, str]]:
    """Rows for the table."""
    rows = []
    async with stack() as running:
        for size, old in SIZES.items():
            async with grpc.aio.insecure_channel(running.address, options=CHANNEL) as channel:
                rows += await _of_size(running, channel, size, old)
    return [*rows, ("fdatasync of 8 KiB, ms", f"{limits.fdatasync_ms():.2f}", "limit of each commit")]


async def paced() -> list[tuple[str, str, str]]:
    """Rows for the table: edits alone, at several paces."""
    rows = []
    async with stack() as running, grpc.aio.insecure_channel(running.address, options=CHANNEL) as channel:
        session_id = await _session(running, channel, PACED_MIB)
        edit = _editing(running, channel, session_id, random.Random(1))
        await edit()  # fetches
        for pause, repeats in PACES.items():
            times = []
            for _ in range(repeats):
                await asyncio.sleep(pause)
                times.append(await _timed(edit))
            how = f"{pause:g} s apart" if pause else "back to back"
            rows.append((f"{PACED_MIB:g} MiB: edits {how}, ms", f"{spread(times, 1)}; p90 {percentile(times, 0.9):.1f}", AIMS["edit"]))
    return [*rows, ("fdatasync of 8 KiB, ms", f"{limits.fdatasync_ms():.2f}", "limit of each commit")]


def _editing(running: Stack, channel: grpc.aio.Channel, session_id: str, rng: random.Random) -> Callable[[], Awaitable[None]]:
    files = file_service_pb2_grpc.FileServiceStub(channel)

    async def edit() -> None:
        write = pb.WriteEdit(path="package0/edited.txt", data=_text(rng, EDIT_BYTES))
        await files.EditFiles(pb.EditFilesRequest(session_id=session_id, edits=[pb.FileEdit(write=write)]), metadata=running.metadata)

    return edit


async def _of_size(running: Stack, channel: grpc.aio.Channel, size: float, old: dict[str, str]) -> list[tuple[str, str, str]]:
    session_id = await _session(running, channel, size)
    files = file_service_pb2_grpc.FileServiceStub(channel)
    rng = random.Random(size)

    async def read() -> None:
        request = pb.ReadFileRequest(session_id=session_id, path="package0/edited.txt")
        await _drained(files.ReadFile(request, metadata=running.metadata))

    async def listed() -> None:
        await files.ListFiles(pb.ListFilesRequest(session_id=session_id, path="package0"), metadata=running.metadata)

    async def download() -> None:
        await _drained(files.DownloadArchive(pb.DownloadArchiveRequest(session_id=session_id), metadata=running.metadata))

    calls: dict[str, tuple[Callable[[], Awaitable[None]], int]] = {
        "edit": (_editing(running, channel, session_id, rng), REPEATS),
        "read": (read, REPEATS),
        "list": (listed, REPEATS),
        "download": (download, ARCHIVES),
    }
    rows = []
    for name, (call, repeats) in calls.items():
        await call()  # the first may fetch
        times = [await _timed(call) for _ in range(repeats)]
        last = f"; p99 {percentile(times, 0.99):.1f}" if repeats == REPEATS else ""
        aim = "; ".join(filter(None, [AIMS[name], f"replaced system {old[name]}"]))
        rows.append((f"{size:g} MiB: {name}, ms", f"{spread(times, 1)}{last}", aim))
    return [*rows, (f"{size:g} MiB: bytes stored for an edit", await _stored(running, channel, session_id), _allowed(rng))]


async def _session(running: Stack, channel: grpc.aio.Channel, size: float) -> str:
    """Of a repository with so many MiB of text that compresses to about half, after one turn."""
    name = f"files-{size:g}"
    request = running.repository(name, {"write": "note.md", "content": "a turn's work\n"})
    rng = random.Random(7)
    count = int(size * 1024 * 1024 / FILE_BYTES)
    running.git.commit(f"bench/{name}", {f"package{n // 40}/file{n % 40}.txt": _text(rng, FILE_BYTES) for n in range(count)})
    sessions = session_service_pb2_grpc.SessionServiceStub(channel)
    session_id = ""
    async for frame in running.execute(sessions, **request):
        for event in events_in(frame):
            session_id = event.session_id
    return session_id


async def _stored(running: Stack, channel: grpc.aio.Channel, session_id: str) -> str:
    """What the snapshots of edits take in the object store, of those that are there by now."""
    sessions = session_service_pb2_grpc.SessionServiceStub(channel)
    request = session_service_pb2.ListSnapshotsRequest(session_id=session_id, page_size=50)
    listed = await sessions.ListSnapshots(request, metadata=running.metadata)
    sizes = [float(each.size) for each in listed.snapshots if each.kind == snapshot_pb2.SNAPSHOT_KIND_EDIT and each.size]
    return spread(sizes) if sizes else "none stored yet"


def _allowed(rng: random.Random) -> str:
    most = 1.2 * len(gzip.compress(_text(rng, EDIT_BYTES))) + 64 * 1024
    return f"aim {most:,.0f} (1.2 x the compressed change + 64 KiB)"


async def _timed(call: Callable[[], Awaitable[None]]) -> float:
    begun = time.perf_counter()
    await call()
    return (time.perf_counter() - begun) * 1000


async def _drained(stream: AsyncIterator[object]) -> None:
    async for _ in stream:
        continue


def _text(rng: random.Random, size: int) -> bytes:
    """Words, half of them never seen before."""
    return b" ".join(b"%x" % rng.getrandbits(48) for _ in range(size // 13 + 1))[:size]
