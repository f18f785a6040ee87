"""Keeps mirrors small: packs are put together, and what belonged to deleted sessions goes, in the end with the mirror itself."""

from __future__ import annotations

import asyncio
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from server.git.base_tree import forget_bases
from server.git.command import Git, GitFailed
from server.git.mirror import Mirrors
from server.git.prepared import tidy
from server.git.refs import session_ref

_FIRST_SECONDS = 300.0
_LOCK_SECONDS = 1.0
_DAY_SECONDS = 24 * 3600.0

log = structlog.get_logger()


@dataclass(frozen=True)
class Policy:
    """When a mirror is worth the work."""

    every_seconds: float = 3600
    idle_seconds: float = 600
    """A mirror that a turn has used since is left alone: the next turn comes soon, and would wait for the lock."""
    packs: int = 20
    loose_objects: int = 5000
    expire: str = "2.weeks.ago"
    """Younger objects stay, also when nothing names them: a turn that runs now may be about to (git-prune(1))."""
    unused_seconds: float = 30 * _DAY_SECONDS
    """After so long, a mirror without a session is removed."""


@dataclass
class Upkeep:
    """Goes round all mirrors of this server. It has a mirror alone while it works there, and may stop at any point."""

    git: Git
    mirrors: Mirrors
    policy: Policy = field(default_factory=Policy)
    _failed: dict[Path, float] = field(default_factory=dict)

    async def run(self) -> None:
        """For ever, until cancelled."""
        await asyncio.sleep(_FIRST_SECONDS)
        while True:
            await self.once()
            await asyncio.sleep(self.policy.every_seconds)

    async def once(self) -> None:
        """One round. A mirror that fails is left for a day, and stops no other."""
        for mirror in await asyncio.to_thread(self.mirrors.all):
            if time.monotonic() < self._failed.get(mirror, 0):
                continue
            try:
                await asyncio.to_thread(tidy, mirror)
                await self._tend(mirror)
            except TimeoutError:
                continue  # somebody works in it
            except (GitFailed, OSError) as error:
                log.warning("mirror.upkeep_failed", mirror=mirror.name, error=str(error))
                self._failed[mirror] = time.monotonic() + _DAY_SECONDS

    async def _tend(self, mirror: Path) -> None:
        idle = self.mirrors.idle_seconds(mirror)
        if idle < self.policy.idle_seconds:
            return
        async with self.mirrors.alone(mirror, seconds=_LOCK_SECONDS):
            forgotten = await asyncio.to_thread(self.mirrors.forgotten, mirror)
            for note in forgotten:
                await self.git.run("update-ref", "--no-deref", "-d", session_ref(note.name), git_dir=mirror)
            if idle > self.policy.unused_seconds and not await self._has_sessions(mirror):
                await asyncio.to_thread(tidy, mirror, everything=True)
                await asyncio.to_thread(shutil.rmtree, mirror)
                log.info("mirror.removed", mirror=mirror.name)
            elif forgotten or await self._is_scattered(mirror):
                await self._repack(mirror)
            # Last: a round that was cut short begins again.
            for note in forgotten:
                note.unlink(missing_ok=True)

    async def _has_sessions(self, mirror: Path) -> bool:
        return bool((await self.git.run("for-each-ref", "--count=1", "refs/treadle/sessions", git_dir=mirror)).stdout)

    async def _is_scattered(self, mirror: Path) -> bool:
        def count(pattern: str) -> int:
            return sum(1 for _ in mirror.glob(pattern))

        packs = await asyncio.to_thread(count, "objects/pack/*.pack")
        return packs >= self.policy.packs or await asyncio.to_thread(count, "objects/??/*") >= self.policy.loose_objects

    async def _repack(self, mirror: Path) -> None:
        expire = self.policy.expire
        await asyncio.to_thread(forget_bases, mirror)
        await self.git.run("pack-refs", "--all", "--prune", git_dir=mirror)
        await self.git.run("repack", "-A", "-d", "-q", f"--unpack-unreachable={expire}", git_dir=mirror)
        await self.git.run("prune", f"--expire={expire}", git_dir=mirror)
        log.info("mirror.repacked", mirror=mirror.name)
