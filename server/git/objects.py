"""Reads a mirror's objects by `git cat-file` processes that stay: a new process costs milliseconds, a question to one some 50 microseconds.

pygit2 would answer sooner, and hold all of the server still while it inflates a large blob.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from server.git.command import HELD_LOCKS, Completed, Git, GitFailed, end

CHUNK = 256 * 1024
ANSWER_SECONDS = 30.0
_QUESTIONS = 400
"""So many are asked at once: more would not fit into the pipe, and git reads none while it waits for us to read."""
_DRAINED_BYTES = 1024 * 1024
_ID = re.compile(r"[0-9a-f]{40}")
_UNREAD = re.compile(r"unable to (?:read|parse)\b.*?\b([0-9a-f]{40})\b")


class ObjectMissing(GitFailed):
    """The mirror does not have it."""

    def __init__(self, name: str) -> None:
        reason = f"{name} is not here"
        super().__init__(Completed(-1, b"", reason), reason)
        self.id = name if _ID.fullmatch(name) else ""

    @classmethod
    def told_in(cls, text: str) -> ObjectMissing | None:
        """The object that git says it could not read; None when it says so of none."""
        found = _UNREAD.search(text)
        return cls(found[1]) if found else None


class ObjectTooLarge(GitFailed):
    """It has more bytes than may be read at once."""

    def __init__(self, name: str, limit: int) -> None:
        reason = f"{name} has more than {limit:,} bytes"
        super().__init__(Completed(-1, b"", reason), reason)
        self.limit = limit


@dataclass(frozen=True)
class Info:
    """What git knows of an object: `kind` is `blob`, `tree`, `commit` or `tag`."""

    id: str
    kind: str
    size: int


class Answering:
    """One process, for one user at a time. What was asked is read to its end, or the process cannot be used any more."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._unread = False
        self.idle_since = 0.0

    @property
    def usable(self) -> bool:
        """Whether the next answer would be to the next question."""
        return not self._unread and self._process.returncode is None

    async def close(self) -> None:
        """End the process; bounded."""
        await end(self._process)

    @property
    def _in(self) -> asyncio.StreamWriter:
        assert self._process.stdin is not None  # noqa: S101 - it was asked for as a pipe
        return self._process.stdin

    @property
    def _out(self) -> asyncio.StreamReader:
        assert self._process.stdout is not None  # noqa: S101 - it was asked for as a pipe
        return self._process.stdout


class Reader(Answering):
    """Tells of objects, and what they hold."""

    async def infos(self, names: Sequence[str]) -> list[Info | None]:
        """None for what is not there. A name is whatever git takes for one; it holds no line break. Errors: GitFailed."""
        found: list[Info | None] = []
        for asked in _batches(names):
            self._ask("info", asked)
            async with _answering():
                found += [await self._header() for _ in asked]
            self._unread = False
        return found

    async def content(self, name: str, *, kind: str, limit: int) -> bytes:
        """A small object, whole. Errors: ObjectMissing, ObjectTooLarge, GitFailed."""
        return (await self.named(name, kind=kind, limit=limit))[1]

    async def named(self, name: str, *, kind: str, limit: int) -> tuple[str, bytes]:
        """The same of an object that is not called by its id, with that. Errors: ObjectMissing, ObjectTooLarge, GitFailed."""
        self._ask("contents", [name])
        async with _answering():
            info = await self._header()
            if info is None:
                self._unread = False
                raise ObjectMissing(name)
            if info.kind != kind:
                raise _failed(f"{name} is a {info.kind}")
            if info.size > limit:
                raise ObjectTooLarge(name, limit)
            content = await self._out.readexactly(info.size)
            await self._out.readexactly(1)
        self._unread = False
        return info.id, content

    async def contents(self, ids: Sequence[str]) -> AsyncGenerator[tuple[Info, AsyncGenerator[bytes, None]], None]:
        """Many objects, one behind the other; each has to be read before the next. Errors: ObjectMissing, GitFailed."""
        for asked in _batches(ids):
            self._ask("contents", asked)
            for identity in asked:
                async with _answering():
                    info = await self._header()
                if info is None:
                    raise ObjectMissing(identity)
                yield info, self._chunks(info.size)
            self._unread = False

    async def small(self, ids: Collection[str], *, kind: str, limit: int) -> dict[str, bytes]:
        """Objects that have no more than `limit` bytes together, whole. Errors: ObjectMissing, ObjectTooLarge, GitFailed."""
        found, size = {}, 0
        async with aclosing(self.contents(list(ids))) as contents:
            async for info, chunks in contents:
                size += info.size
                if info.kind != kind:
                    raise _failed(f"{info.id} is a {info.kind}")
                if size > limit:
                    raise ObjectTooLarge(info.id, limit)
                found[info.id] = b"".join([chunk async for chunk in chunks])
        return found

    async def blob(self, identity: str, *, offset: int, length: int) -> AsyncGenerator[bytes, None]:
        """A part of a blob. Errors: ObjectMissing, GitFailed."""
        async with aclosing(self.contents([identity])) as found:
            async for info, chunks in found:
                left = info.size
                async for chunk in chunks:
                    left -= len(chunk)
                    part = chunk[max(0, offset) : max(0, offset) + length]
                    offset -= len(chunk)
                    length -= len(part)
                    if part:
                        yield part
                    if not length and left > _DRAINED_BYTES:
                        return  # a new process is cheaper than the rest

    def _ask(self, what: str, names: Sequence[str]) -> None:
        self._unread = True
        self._in.write("".join([*(f"{what} {name}\n" for name in names), "flush\n"]).encode())

    async def _header(self) -> Info | None:
        line = await self._out.readline()
        words = line.decode("ascii", "replace").split()
        if not line.endswith(b"\n") or len(words) < 2:
            raise _failed("git ended in the middle of an answer")
        if words[-1] in {"missing", "ambiguous"}:
            return None
        identity, kind, size = words
        return Info(identity, kind, int(size))

    async def _chunks(self, size: int) -> AsyncGenerator[bytes, None]:
        while size > 0:
            async with _answering():
                chunk = await self._out.read(min(size, CHUNK))
            if not chunk:
                raise _failed("git ended in the middle of an object")
            size -= len(chunk)
            yield chunk
        async with _answering():
            await self._out.readexactly(1)


A = TypeVar("A", bound=Answering)

_Made = tuple[Path, int, int]
"""A mirror, and when it was made, by a file that nobody changes: a git has its packs mapped, and so answers from one that is gone."""


class Processes(Generic[A]):
    """Those of all mirrors. As many are kept as are worth their memory: for some time, and the last used ones."""

    def __init__(self, git: Git, kind: Callable[[asyncio.subprocess.Process], A], *arguments: str, most: int, idle_seconds: float) -> None:
        """Of `git <arguments>`, `most` at a time; who comes then waits for one."""
        self._git = git
        self._kind = kind
        self._arguments = arguments
        self._places = asyncio.Semaphore(most)
        self._kept = most
        self._idle_seconds = idle_seconds
        self._idle: list[tuple[_Made, A]] = []
        """The one that was used last is last."""

    @asynccontextmanager
    async def of(self, mirror: Path) -> AsyncIterator[A]:
        """One of this mirror, for the block alone. Errors: GitFailed; TimeoutError when none is free."""
        async with asyncio.timeout(ANSWER_SECONDS):
            await self._places.acquire()
        try:
            made = _made(mirror)
            process = self._take(made) or await self._start(mirror)
            try:
                yield process
            except asyncio.IncompleteReadError:
                raise _failed("git ended in the middle of an answer") from None
            finally:
                await self._put_back(made, process)
        finally:
            self._places.release()

    async def run(self) -> None:
        """Until cancelled: end those that nobody has used for a while; then all."""
        try:
            while True:
                await asyncio.sleep(self._idle_seconds)
                await self._end_idle(time.monotonic() - self._idle_seconds)
        finally:
            await self._end_idle(float("inf"))

    def _take(self, made: _Made) -> A | None:
        for index in range(len(self._idle) - 1, -1, -1):
            if self._idle[index][0] == made:
                process = self._idle.pop(index)[1]
                if process.usable:
                    return process
        return None

    async def _start(self, mirror: Path) -> A:
        # It outlives whoever asks first, and so holds none of their locks.
        token = HELD_LOCKS.set(())
        try:
            process = await self._git.start(*self._arguments, git_dir=mirror, stderr=asyncio.subprocess.DEVNULL)
        finally:
            HELD_LOCKS.reset(token)
        return self._kind(process)

    async def _put_back(self, made: _Made, process: A) -> None:
        if not process.usable:
            await process.close()
            return
        process.idle_since = time.monotonic()
        self._idle.append((made, process))
        if len(self._idle) > self._kept:
            await self._idle.pop(0)[1].close()

    async def _end_idle(self, before: float) -> None:
        idle = [process for _, process in self._idle if process.idle_since <= before]
        self._idle = [kept for kept in self._idle if kept[1] not in idle]
        await asyncio.gather(*(process.close() for process in idle))


class Objects(Processes[Reader]):
    """Readers."""

    def __init__(self, git: Git, *, most: int = 24, idle_seconds: float = 60.0) -> None:
        """`most` at a time; who comes then waits for one. Downloads and searches may hold 16 for long (GitTrees)."""
        super().__init__(git, Reader, "cat-file", "--batch-command", "--buffer", most=most, idle_seconds=idle_seconds)

    def reader(self, mirror: Path) -> AbstractAsyncContextManager[Reader]:
        """See `of`."""
        return self.of(mirror)


def _made(mirror: Path) -> _Made:
    try:
        head = (mirror / "HEAD").stat()
    except (FileNotFoundError, NotADirectoryError):
        raise ObjectMissing("the repository") from None
    return mirror, head.st_ino, head.st_mtime_ns


def _answering() -> asyncio.Timeout:
    return asyncio.timeout(ANSWER_SECONDS)


def _batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    return (names[start : start + _QUESTIONS] for start in range(0, len(names), _QUESTIONS))


def _failed(reason: str) -> GitFailed:
    return GitFailed.of(reason)
