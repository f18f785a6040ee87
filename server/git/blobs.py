"""Many blobs, one behind the other, for a thread to read: by the event loop's streams it takes longer than to compress what comes."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from server.git.command import Git, GitFailed, end
from server.git.objects import ANSWER_SECONDS, CHUNK, ObjectMissing

MOST = 12
_THREADS = ThreadPoolExecutor(MOST, "blobs")
"""They wait for git: others' work, in the loop's own threads, shall not wait with them."""
_PIPE_BYTES = 1024 * 1024
"""So far git is ahead of the thread."""

T = TypeVar("T")


class Blobs:
    """One process, whose answers come in the order in which they were asked for."""

    def __init__(self, process: asyncio.subprocess.Process, pipe: BinaryIO) -> None:
        self._process = process
        self._pipe = pipe
        self._reading: asyncio.Future[Any] | None = None

    def ask(self, ids: Sequence[str]) -> None:
        """For some hundreds at most; no more before those are read, but for as many again."""
        assert self._process.stdin is not None  # noqa: S101 - it was asked for as a pipe
        self._process.stdin.write("".join([*(f"contents {each}\n" for each in ids), "flush\n"]).encode())

    async def thread(self, call: Callable[[], T]) -> T:
        """Run what reads, one such call at a time. Errors: TimeoutError, those of the call."""
        reading = asyncio.get_running_loop().run_in_executor(_THREADS, call)
        self._reading = reading
        async with asyncio.timeout(ANSWER_SECONDS):
            return await asyncio.shield(reading)

    def size(self, identity: str) -> int:
        """Of the next one, in bytes. Blocks. Errors: ObjectMissing, GitFailed."""
        line = self._pipe.readline()
        words = line.split()
        if not line.endswith(b"\n") or len(words) < 2:
            raise GitFailed.of("git ended in the middle of an answer")
        if words[-1] == b"missing":
            raise ObjectMissing(identity)
        return int(words[2])

    def content(self, size: int) -> Iterator[bytes]:
        """Of the same one; has to be read to its end. Blocks. Errors: GitFailed."""
        while size > 0:
            chunk = self._pipe.read(min(size, CHUNK))
            if not chunk:
                raise GitFailed.of("git ended in the middle of an object")
            size -= len(chunk)
            yield chunk
        self._pipe.read(1)

    async def close(self) -> None:
        """End git, and with it what still reads."""
        await end(self._process)
        if self._reading:
            await asyncio.wait([self._reading])
            self._reading.exception()  # told by `thread`, unless who waited there has left


@asynccontextmanager
async def blobs(git: Git, mirror: Path) -> AsyncIterator[Blobs]:
    """For the block alone. Errors: OSError."""
    out, into = os.pipe2(os.O_CLOEXEC)
    with os.fdopen(out, "rb", buffering=CHUNK) as pipe:
        try:
            with suppress(PermissionError):  # who has many pipes may have no larger ones
                fcntl.fcntl(out, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            process = await git.start(
                "cat-file", "--batch-command", "--buffer", git_dir=mirror, stdout=into, stderr=asyncio.subprocess.DEVNULL
            )
        finally:
            os.close(into)
        reading = Blobs(process, pipe)
        try:
            yield reading
        finally:
            await reading.close()
