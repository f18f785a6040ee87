"""Brings branches of remotes into mirrors. Fetches that are wanted at the same time are one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from server.git.command import Git, GitFailed
from server.git.mirror import Mirrors
from server.git.refs import branch_ref, commit_id, fetched_ref
from server.git.remote import Remote
from server.kernel.ports.repositories import Repository

Tips = Mapping[str, str]
"""Branch -> commit, of the branches that the remote has."""


@dataclass
class _Round:
    task: asyncio.Task[Tips]
    wanted: set[str] = field(default_factory=set)


class Fetches:
    """For each mirror one round at a time: the remote is asked what it has, and what the mirror lacks is fetched. Who comes before a round
    begins shares it, its failure included; who comes later waits for the next, because the remote may have moved since it was asked."""

    def __init__(self, git: Git, remote: Remote, mirrors: Mirrors, *, lock_seconds: float) -> None:
        self._git = git
        self._remote = remote
        self._mirrors = mirrors
        self._lock_seconds = lock_seconds
        self._next: dict[Repository, _Round] = {}
        self._last: dict[Repository, asyncio.Task[Tips]] = {}

    async def join(self, repository: Repository, branches: Iterable[str]) -> Tips:
        """Have these branches in the mirror as they are on the remote now, or later. A caller who is cancelled leaves alone.

        Errors: RepositoryUnreachable, TimeoutError, GitFailed, OSError.
        """
        joined = self._next.get(repository)
        if joined is None:
            task = asyncio.create_task(self._run(repository, self._last.get(repository)), name="fetch")
            joined = self._next[repository] = _Round(task)
            self._last[repository] = task
        joined.wanted.update(branches)
        tips = await asyncio.shield(joined.task)
        return {branch: tips[branch] for branch in branches if branch in tips}

    async def aclose(self) -> None:
        """End the rounds that still run."""
        tasks = list(self._last.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, repository: Repository, before: asyncio.Task[Tips] | None) -> Tips:
        try:
            if before is not None:
                await asyncio.wait({before})
            wanted = self._next.pop(repository).wanted
            return await self._bring(repository, sorted(wanted))
        finally:
            if self._last.get(repository) is asyncio.current_task():
                del self._last[repository]

    async def _bring(self, repository: Repository, wanted: list[str]) -> Tips:
        told = await self._remote.advertised(repository, *wanted)
        tips = {branch: told.refs[branch_ref(branch)] for branch in wanted if branch_ref(branch) in told.refs}
        if not tips:
            return tips
        async with self._mirrors.fetching(repository, seconds=self._lock_seconds) as mirror:
            if await self._has(mirror, tips):
                await self._note(mirror, tips)
                return tips
            await self._remote.fetch(repository, mirror, list(tips))
            return await self._fetched(mirror, tips)

    async def _has(self, mirror: Path, tips: Tips) -> bool:
        """Whether the commits are here with all that they need: the question by which git itself decides that it need not fetch."""
        try:
            commits = sorted({commit_id(commit) for commit in tips.values()})
            await self._git.run("rev-list", "--objects", "--quiet", *commits, "--not", "--all", git_dir=mirror)
        except (GitFailed, ValueError):
            return False
        return True

    async def _note(self, mirror: Path, tips: Tips) -> None:
        lines = "".join(f"update {fetched_ref(branch)} {commit}\n" for branch, commit in tips.items())
        await self._git.run("update-ref", "--no-deref", "--stdin", git_dir=mirror, stdin=lines.encode())

    async def _fetched(self, mirror: Path, branches: Iterable[str]) -> Tips:
        """What was fetched, which may be newer than what was told."""
        names = {fetched_ref(branch): branch for branch in branches}
        told = await self._git.run("for-each-ref", "--format=%(refname) %(objectname)", *names, git_dir=mirror)
        return {names[ref]: commit for ref, _, commit in (line.partition(" ") for line in told.text.splitlines())}
