"""Mirrors: bare repositories in the server's own directory, one per tenant, owner and URL (zone R)."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from weakref import WeakValueDictionary

from server.git.command import Git
from server.kernel.ports.repositories import Repository

_POLL_SECONDS = 0.02


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
        path = self.path(repository)
        lock = self._locks.setdefault(path, asyncio.Lock())
        async with asyncio.timeout(seconds):
            await lock.acquire()
        try:
            self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                await _flock(descriptor, seconds)
                await self._ensure(path)
                yield path
            finally:
                os.close(descriptor)
        finally:
            lock.release()

    async def _ensure(self, path: Path) -> None:
        # HEAD is the last thing that init writes into a new directory's skeleton, and init may be repeated.
        if not (path / "HEAD").exists():
            await self._git.run("init", "--quiet", "--bare", "--template=", "--initial-branch=treadle-unborn", str(path))


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
