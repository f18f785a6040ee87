"""Mirrors: bare repositories in the server's own directory, one per tenant, owner and URL (zone R)."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from weakref import WeakValueDictionary

from server.git.command import HELD_LOCKS, Git
from server.git.refs import session_ref
from server.kernel.ports.repositories import Repository

_POLL_SECONDS = 0.02
_FORGOTTEN = ".forgotten"


class Mirrors:
    """Finds or makes a repository's mirror. Writers of one mirror take turns, in this process and against others."""

    def __init__(self, root: Path, git: Git) -> None:
        self._root = root
        self._git = git
        self._locks: WeakValueDictionary[Path, asyncio.Lock] = WeakValueDictionary()

    def path(self, repository: Repository) -> Path:
        """Where the mirror is; no part of its name is chosen by a caller."""
        key = "\0".join((repository.tenant_id, repository.owner_id, repository.url))
        return self._root / f"{hashlib.sha256(key.encode()).hexdigest()}.git"

    @asynccontextmanager
    async def locked(self, repository: Repository, *, seconds: float) -> AsyncIterator[Path]:
        """The mirror, made if needed, for one writer. Errors: TimeoutError when others hold it for `seconds`."""
        async with self.held(self.path(repository), seconds=seconds) as path:
            (path.with_suffix(".lock")).touch()
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
    async def held(self, path: Path, *, seconds: float) -> AsyncIterator[Path]:
        """The same for the mirror at `path`. Whoever gets it can be sure that no git works in it, and that none left anything
        half-done: a git that outlived its server still has the lock, and what a killed one left is removed."""
        lock = self._locks.setdefault(path, asyncio.Lock())
        async with asyncio.timeout(seconds):
            await lock.acquire()
        try:
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                await _flock(descriptor, seconds)
                token = HELD_LOCKS.set((*HELD_LOCKS.get(), descriptor))
                try:
                    await self._ensure(path)
                    await asyncio.to_thread(sweep, path)
                    yield path
                finally:
                    HELD_LOCKS.reset(token)
            finally:
                os.close(descriptor)
        finally:
            lock.release()

    async def _ensure(self, path: Path) -> None:
        """Made beside it and renamed: a mirror is whole, or is not there (or half-made by an older Treadle, and holds nothing)."""
        if (path / "objects" / "pack").is_dir():
            return
        draft = path.with_suffix(".new")
        for directory in (draft, path):
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
        await self._git.run("init", "--quiet", "--bare", "--template=", "--initial-branch=treadle-unborn", "--end-of-options", str(draft))
        draft.rename(path)


def sweep(mirror: Path) -> None:
    """Remove what a git, or an import, leaves that was killed. Only under the mirror's lock."""
    for directory in mirror.glob("import-*"):
        shutil.rmtree(directory)
    locks = [*mirror.glob("*.lock"), *mirror.glob("refs/**/*.lock"), *mirror.glob("objects/info/*.lock")]
    packs = [path for path in mirror.glob("objects/pack/*") if path.name.startswith(("tmp_", ".tmp-")) or path.suffix == ".keep"]
    for path in (*locks, *packs):
        path.unlink()


async def _flock(descriptor: int, seconds: float) -> None:
    """Another process's lock cannot be awaited without a thread that no cancel reaches; hence the polling."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                await asyncio.sleep(_POLL_SECONDS)
            else:
                return
