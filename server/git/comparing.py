"""What differs between two commits, told by `git diff-tree` processes that stay: an edit tells it, and has no time to start one."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path

import structlog

from server.git.command import CHUNK, Git, GitFailed
from server.git.diff import LISTED, listed
from server.git.objects import Answering, Processes
from server.git.refs import commit_id
from server.kernel.errors import TooManyStreams
from server.kernel.places import Places
from server.kernel.ports.repositories import Diff

COMPARE_SECONDS = 2.0
_LISTING_BYTES = 16 * 1024 * 1024

log = structlog.get_logger()


class Comparer(Answering):
    """Tells which files differ, and by how many lines."""

    async def listing(self, base: str, head: str) -> bytes:
        """Of two commits that differ, as `diff.listed` takes it. Errors: GitFailed."""
        # A line that names no object is repeated when all before it is told: so the end is known.
        end = f"end {secrets.token_hex(8)}\n".encode()
        self._unread = True
        self._in.write(f"{head} {base}\n".encode() + end)
        told = bytearray()
        while not told.endswith(end):
            chunk = await self._out.read(CHUNK)
            told += chunk
            if not chunk or len(told) > _LISTING_BYTES:
                raise GitFailed.of("git ended in the middle of an answer" if not chunk else "too many files differ")
        self._unread = False
        commit, _, listing = bytes(told[: -len(end)]).partition(b"\0")
        if commit != head.encode():
            raise GitFailed.of("git does not have both commits")
        return listing


class Comparers(Processes[Comparer]):
    """Those of all mirrors. No edit waits for one: as many are compared as there are processes, and of one user not all of those."""

    def __init__(self, git: Git, *, most: int = 8, each: int = 4, idle_seconds: float = 60.0) -> None:
        super().__init__(git, Comparer, "diff-tree", "--stdin", *LISTED, most=most, idle_seconds=idle_seconds)
        self._shares = Places(most=most, each=each)

    async def compare(self, mirror: Path, base: str, head: str, *, owner: str, max_files: int) -> Diff | None:
        """Two commits that differ, without patches, for a user; None where that takes too long, fails, or they and others have asked for
        too much at once: nothing depends on it."""
        try:
            with self._shares.taken(owner):
                async with asyncio.timeout(COMPARE_SECONDS), self.of(mirror) as comparer:
                    listing = await comparer.listing(commit_id(base), commit_id(head))
        except TooManyStreams:
            log.info("edit.not_compared", error="as many are compared as may be")
            return None
        except (TimeoutError, GitFailed, OSError) as error:
            log.warning("edit.not_compared", error=str(error) or "it took too long")
            return None
        return await asyncio.to_thread(listed, listing, max_files)
