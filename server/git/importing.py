"""Zone I, the trusted half: from the walker's answer to a commit under the session's private ref."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

from server.git.base_tree import list_tree
from server.git.command import Git, GitFailed
from server.git.isolation import walk
from server.git.manifest import Manifest, cut, measure, parse, read_records
from server.git.quarantine import Quarantine, quarantine
from server.git.refs import session_ref
from server.git.walker.protocol import Limits, parse_base
from server.kernel.errors import WorkspaceFailed
from server.kernel.ports.repositories import Author, Imported
from server.sandbox.bubblewrap import Sandbox

_ZERO = "0" * 40


@dataclass(frozen=True)
class Parentage:
    """What the new commit will say besides its tree."""

    parent: str
    message: str
    author: Author
    at: datetime


class Importer:
    """Imports workspaces into mirrors. The caller uses the mirror, or has it alone."""

    def __init__(self, git: Git, sandbox: Sandbox | None, limits: Limits, *, seconds: float) -> None:
        self._git = git
        self._sandbox = sandbox
        self._limits = limits
        self._seconds = seconds

    async def run(self, mirror: Path, *, session_id: str, workspace: Path, over: Parentage) -> Imported:
        """Read, compare, and commit if something changed. Errors: WorkspaceFailed."""
        try:
            async with quarantine(self._git, mirror) as held:
                return await self._import(mirror, held, session_id, workspace, over)
        except (GitFailed, OSError) as error:
            raise WorkspaceFailed(f"the workspace could not be imported: {error}") from error

    async def reword(self, mirror: Path, *, session_id: str, commit: str, message: str) -> str:
        """The commit with another message, under the session's ref. Errors: WorkspaceFailed."""
        try:
            content = (await self._git.run("cat-file", "commit", commit, git_dir=mirror)).stdout
            head, _, _ = content.partition(b"\n\n")
            reworded = head + b"\n\n" + _clean(message)
            made = (await self._git.run("hash-object", "-t", "commit", "-w", "--stdin", git_dir=mirror, stdin=reworded)).text
            await self._keep(mirror, session_id, made)
        except GitFailed as error:
            raise WorkspaceFailed(f"the commit's message could not be changed: {error.reason}") from error
        return made

    async def _import(self, mirror: Path, held: Quarantine, session_id: str, workspace: Path, over: Parentage) -> Imported:
        tree = (await self._git.run("rev-parse", "--verify", "--end-of-options", f"{over.parent}^{{tree}}", git_dir=mirror)).text
        manifest = await self._read(mirror, held, workspace, tree)
        skipped = tuple(manifest.skipped)
        commit = None
        if not manifest.is_unchanged:
            tree = await self._write_tree(mirror, held, tree, manifest)
            commit = await self._commit(mirror, held, tree, over)
            await held.release(commit, over.parent, kept=manifest.judged_before)
        await self._keep(mirror, session_id, commit or over.parent)
        return Imported(commit, tree, skipped, manifest.skipped_count)

    async def _read(self, mirror: Path, held: Quarantine, workspace: Path, tree: str) -> Manifest:
        listing = await list_tree(self._git, mirror, tree)
        with (held.directory / "answer").open("w+b", buffering=0) as answer:
            await walk(self._sandbox, workspace, base=listing, limits=self._limits, answer=answer, seconds=self._seconds)
            # It takes time in proportion to the tree, not to the change: off the loop.
            manifest = await asyncio.to_thread(_understand, answer, listing, self._limits)
            if manifest.claimed:
                await held.take(answer, manifest.claimed, max_bytes=2 * self._limits.total_bytes)
        return manifest

    async def _write_tree(self, mirror: Path, held: Quarantine, tree: str, manifest: Manifest) -> str:
        """By git's own index, which also refuses names that lead out of a tree."""
        await self._git.run("read-tree", tree, git_dir=mirror, environment=held.environment)
        changes = await asyncio.to_thread(_index_info, manifest)
        await self._git.run("update-index", "-z", "--index-info", git_dir=mirror, stdin=changes, environment=held.environment)
        return (await self._git.run("write-tree", git_dir=mirror, environment=held.environment)).text

    async def _commit(self, mirror: Path, held: Quarantine, tree: str, over: Parentage) -> str:
        date = f"@{int(over.at.timestamp())} +0000"
        identity = {
            "GIT_AUTHOR_NAME": over.author.name, "GIT_AUTHOR_EMAIL": over.author.email, "GIT_AUTHOR_DATE": date,
            "GIT_COMMITTER_NAME": over.author.name, "GIT_COMMITTER_EMAIL": over.author.email, "GIT_COMMITTER_DATE": date,
        }  # fmt: skip
        message = _clean(over.message)
        made = await self._git.run(
            "commit-tree", tree, "-p", over.parent, git_dir=mirror, stdin=message, environment={**held.environment, **identity}
        )
        return made.text

    async def _keep(self, mirror: Path, session_id: str, commit: str) -> None:
        """Move the session's private ref from what it is now; a commit that only it knows is never collected."""
        ref = session_ref(session_id)
        now = (await self._git.run("rev-parse", "--verify", "--quiet", "--end-of-options", ref, git_dir=mirror, accept=(0, 1))).text
        if now != commit:
            await self._git.run("update-ref", "--no-deref", ref, commit, now or _ZERO, git_dir=mirror)


def _understand(answer: IO[bytes], listing: bytes, limits: Limits) -> Manifest:
    """Read the walker's records; what stays of its answer is the pack."""
    pack, length = measure(answer, base_bytes=len(listing), limits=limits)
    manifest = parse(read_records(answer, pack, length, limits=limits), base=parse_base(listing), limits=limits)
    cut(answer, pack)
    return manifest


def _index_info(manifest: Manifest) -> bytes:
    """For `git update-index --index-info`; removals first, so that a file may take the place of a directory."""
    removals = [b"0 %s\t%s\0" % (_ZERO.encode(), path) for path in manifest.deleted]
    return b"".join(removals + [b"%s %s\t%s\0" % (mode, identity, path) for path, (mode, identity) in manifest.changed.items()])


def _clean(message: str) -> bytes:
    return message.encode("utf-8", "replace").replace(b"\0", b"")
