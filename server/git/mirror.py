"""Mirrors: bare repositories in the server's own directory, one per tenant, owner and URL (zone R)."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from server.git.command import HELD_LOCKS, Git
from server.git.refs import session_ref
from server.kernel.ports.repositories import Repository

UNFINISHED = "tmp_obj_"
"""How files begin that will be objects, in `objects` itself: of uploads. Git's own name for such, so its `prune` knows them too."""
_POLL_SECONDS = 0.02
_FORGOTTEN = ".forgotten"
_STALE_SECONDS = 20.0
"""A ref is locked for milliseconds; one that is locked for so long is locked by a git that is no more."""


class Mirrors:
    """Finds or makes a repository's mirror, and locks it, in this process and against others.

    Two locks: whoever works in a mirror *uses* it, beside others; who removes from it uses it *alone*. Of those who fetch into it there
    is one at a time, beside the others. A git that outlives its server still has its locks.
    """

    def __init__(self, root: Path, git: Git) -> None:
        self._root = root
        self._git = git
        self._swept: set[Path] = set()
        """Those in which nothing half-done was when this process looked last, and nothing went wrong since. To look takes as long as the
        repository has sessions."""

    def path(self, repository: Repository) -> Path:
        """Where the mirror is; no part of its name is chosen by a caller."""
        key = "\0".join((repository.tenant_id, repository.owner_id, repository.url))
        return self._root / f"{hashlib.sha256(key.encode()).hexdigest()}.git"

    @asynccontextmanager
    async def used(self, repository: Repository, *, seconds: float) -> AsyncIterator[Path]:
        """The mirror, made if needed, for reading and for adding to it; others may do so, too. What a killed git may have left, before this
        process began or when something failed here, is removed as soon as nobody else is in it. Errors: TimeoutError when somebody has
        it alone for `seconds`."""
        path = self.path(repository)
        async with self._opened(path.with_suffix(".lock")) as lock:
            os.utime(lock)
            await self._share(lock, path, seconds)
            with self._watched(path):
                yield path

    @asynccontextmanager
    async def added_to(self, repository: Repository, *, seconds: float) -> AsyncIterator[Path]:
        """The same for who only adds objects, without a git: what a killed one left is not in the way, and is left to others."""
        path = self.path(repository)
        async with self._opened(path.with_suffix(".lock")) as lock:
            os.utime(lock)
            await self._share(lock, path, seconds, clean=False)
            yield path

    @asynccontextmanager
    async def fetching(self, repository: Repository, *, seconds: float) -> AsyncIterator[Path]:
        """The same for the one who may write what the remote has (`fetched_ref`). Errors: TimeoutError."""
        async with self._opened(self.path(repository).with_suffix(".fetch")) as lock:
            await _flock(lock, seconds)
            async with self.used(repository, seconds=seconds) as path:
                await to_its_end(lambda: _unlink(path.glob("refs/treadle/fetched/*.lock")))
                yield path

    @asynccontextmanager
    async def alone(self, path: Path, *, seconds: float) -> AsyncIterator[Path]:
        """The mirror at `path`, and nobody else in it: no git works there, and none left anything half-done. Errors: TimeoutError."""
        async with self._opened(path.with_suffix(".lock")) as lock:
            await _flock(lock, seconds)
            await self._clean(path)
            with self._watched(path):
                yield path

    def all(self) -> list[Path]:
        """Every mirror that there is."""
        return sorted(path for path in self._root.glob("*.git") if path.is_dir())

    def idle_seconds(self, path: Path) -> float:
        """How long ago a turn began to use this mirror last."""
        return time.time() - path.with_suffix(".lock").stat().st_mtime

    def forget(self, repository: Repository, session_id: str) -> None:
        """Note that the session is gone. A file, and not the deletion itself, because that would have to wait for the lock."""
        path = self.path(repository)
        if path.is_dir():
            notes = path.with_suffix(_FORGOTTEN)
            notes.mkdir(mode=0o700, exist_ok=True)
            (notes / session_ref(session_id).rpartition("/")[2]).touch()

    def forgotten(self, path: Path) -> list[Path]:
        """The notes of `forget`, each named by its session; whoever has acted on one deletes it."""
        return sorted(path.with_suffix(_FORGOTTEN).glob("*"))

    @asynccontextmanager
    async def _opened(self, name: Path) -> AsyncIterator[int]:
        """The file of a lock; what is locked by it stays so until the last of its holders, and of the programs they started, has ended."""
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        token = HELD_LOCKS.set((*HELD_LOCKS.get(), descriptor))
        try:
            yield descriptor
        finally:
            HELD_LOCKS.reset(token)
            os.close(descriptor)

    @contextmanager
    def _watched(self, path: Path) -> Iterator[None]:
        """What goes wrong may leave something, as a git that is killed does, or be because of what another process's git left."""
        try:
            yield
        except BaseException:
            self._swept.discard(path)
            raise

    async def _share(self, lock: int, path: Path, seconds: float, *, clean: bool = True) -> None:
        """The first one cleans up. To share its lock then, it lets go of it for a moment, in which the mirror may even be removed."""
        deadline = time.monotonic() + seconds
        clean = clean and path not in self._swept
        while True:
            if (clean or not _is_made(path)) and _locked(lock, fcntl.LOCK_EX):
                await self._clean(path)
                clean = False
            if _locked(lock, fcntl.LOCK_SH):
                if _is_made(path):
                    break
                fcntl.flock(lock, fcntl.LOCK_UN)
            if time.monotonic() > deadline:
                raise TimeoutError
            await asyncio.sleep(_POLL_SECONDS)
        if clean:
            await to_its_end(lambda: _unlink(_stale(path)))

    async def _clean(self, path: Path) -> None:
        await self._ensure(path)
        await to_its_end(lambda: sweep(path))
        self._swept.add(path)

    async def _ensure(self, path: Path) -> None:
        """Made beside it and renamed: a mirror is whole, or is not there (or half-made by an older Treadle, and holds nothing)."""
        if _is_made(path):
            return
        draft = path.with_suffix(".new")
        for directory in (draft, path):
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
        await self._git.run("init", "--quiet", "--bare", "--template=", "--initial-branch=treadle-unborn", "--end-of-options", str(draft))
        draft.rename(path)


def sweep(mirror: Path) -> None:
    """Remove what a git, or an import, leaves that was killed. Only when nobody else is in the mirror."""
    for directory in mirror.glob("import-*"):
        shutil.rmtree(directory)
    locks = [*mirror.glob("*.lock"), *mirror.glob("refs/**/*.lock"), *mirror.glob("objects/info/*.lock")]
    packs = [path for path in mirror.glob("objects/pack/*") if path.name.startswith(("tmp_", ".tmp-")) or path.suffix == ".keep"]
    _unlink([*locks, *packs, *mirror.glob(f"objects/{UNFINISHED}*")])


def _stale(mirror: Path) -> list[Path]:
    """Of the lock files that stop a session's next import, those that a killed git left while others work."""
    before = time.time() - _STALE_SECONDS
    return [lock for lock in mirror.glob("refs/treadle/sessions/*.lock") if _changed(lock) < before]


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # it was no leftover
        return float("inf")


def _unlink(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _is_made(mirror: Path) -> bool:
    return (mirror / "objects" / "pack").is_dir()


def _locked(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


async def _flock(descriptor: int, seconds: float) -> None:
    """Another process's lock cannot be awaited without a thread that no cancel reaches; hence the polling."""
    async with asyncio.timeout(seconds):
        while not _locked(descriptor, fcntl.LOCK_EX):  # noqa: ASYNC110
            await asyncio.sleep(_POLL_SECONDS)


async def to_its_end(call: Callable[[], object]) -> None:
    """In a thread. Who is cancelled meanwhile leaves, and lets go of the lock, when it has ended."""
    running = asyncio.create_task(asyncio.to_thread(call))
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        if not running.cancelled():
            running.exception()  # nobody is left to hear it
        raise
