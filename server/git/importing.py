"""Zone I, the trusted half: from the walker's answer to a commit under the session's private ref."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import IO

import structlog

from server.git.base_tree import list_tree
from server.git.command import Git, GitFailed
from server.git.isolation import walk
from server.git.manifest import Changes, Manifest, cut, measure, parse, read_records
from server.git.quarantine import Quarantine, quarantine
from server.git.refs import session_ref
from server.git.walker.protocol import Limits, Start, parse_base
from server.kernel.errors import WorkspaceFailed
from server.kernel.escapes import ESCAPE_SEQUENCE
from server.kernel.ports.repositories import Author, Imported, KeptCommit
from server.sandbox.bubblewrap import Sandbox

_ZERO = "0" * 40
_SIGNATURE = re.compile(r"\s*([a-z0-9-]+-by|session)\s*:", re.IGNORECASE)
"""A line that names a person or a session (git-interpret-trailers): those are for Treadle to say."""

log = structlog.get_logger()


class _CommitsRefused(WorkspaceFailed):
    """What the agent committed itself could not be made into commits; as one commit its work may do."""


@dataclass(frozen=True)
class Parentage:
    """What the new commit will say besides its tree."""

    parent: str
    message: str
    author: Author
    at: datetime
    trailers: str = ""
    """What stands below the words of the agent's own commits; in `message` it is already."""


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
            return await self._run(mirror, session_id, workspace, over, self._limits)
        except _CommitsRefused as error:
            log.warning("import.commits_not_kept", error=error.message)
            return await self._run(mirror, session_id, workspace, over, replace(self._limits, commits=0))

    async def _run(self, mirror: Path, session_id: str, workspace: Path, over: Parentage, limits: Limits) -> Imported:
        try:
            async with quarantine(self._git, mirror) as held:
                imported = await self._import(mirror, held, workspace, over, limits)
                await self._keep(mirror, session_id, imported.commit or over.parent)
        except (GitFailed, OSError) as error:
            raise WorkspaceFailed(f"the workspace could not be imported: {error}") from error
        return imported

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

    async def _import(self, mirror: Path, held: Quarantine, workspace: Path, over: Parentage, limits: Limits) -> Imported:
        tree = (await self._git.run("rev-parse", "--verify", "--end-of-options", f"{over.parent}^{{tree}}", git_dir=mirror)).text
        listing = await list_tree(self._git, mirror, tree)
        start = Start(over.parent.encode(), tree.encode())
        with (held.directory / "answer").open("w+b", buffering=0) as answer:
            await walk(self._sandbox, workspace, start=start, base=listing, limits=limits, answer=answer, seconds=self._seconds)
            # It takes time in proportion to the tree, not to the change: off the loop.
            manifest = await asyncio.to_thread(_understand, answer, listing, limits)
            try:
                if manifest.claimed:
                    await held.take(answer, manifest.claimed, max_bytes=2 * limits.total_bytes)
                made = await self._make(mirror, held, tree, manifest, over)
            except (GitFailed, WorkspaceFailed) as error:
                if manifest.commits:
                    raise _CommitsRefused(f"the agent's commits could not be kept: {error}") from error
                raise
        return replace(made, skipped=tuple(manifest.skipped), skipped_count=manifest.skipped_count)

    async def _make(self, mirror: Path, held: Quarantine, tree: str, manifest: Manifest, over: Parentage) -> Imported:
        """The agent's commits, made anew, and on top of them what it did not commit."""
        if manifest.none and not manifest.commits:
            return Imported(None, tree)
        await self._git.run("read-tree", tree, git_dir=mirror, environment=held.environment)
        last, kept = over, []
        for commit in manifest.commits:
            tree = await self._write_tree(mirror, held, commit)
            words = _words(commit.message)
            told = words + over.trailers if words else over.message
            made = await self._commit(mirror, held, tree, replace(last, message=told, at=_between(last.at, commit.seconds)))
            last = replace(last, parent=made, at=_between(last.at, commit.seconds))
            kept.append(KeptCommit(made, told))
        if not manifest.none:
            tree = await self._write_tree(mirror, held, manifest)
            last = replace(last, parent=await self._commit(mirror, held, tree, last))
        await held.release(last.parent, over.parent, kept=manifest.judged_before)
        return Imported(last.parent, tree, kept=tuple(kept))

    async def _write_tree(self, mirror: Path, held: Quarantine, changes: Changes) -> str:
        """By git's own index, which holds the tree before, and refuses names that lead out of a tree."""
        told = await asyncio.to_thread(_index_info, changes)
        await self._git.run("update-index", "-z", "--index-info", git_dir=mirror, stdin=told, environment=held.environment)
        return (await self._git.run("write-tree", git_dir=mirror, environment=held.environment)).text

    async def _commit(self, mirror: Path, held: Quarantine, tree: str, over: Parentage) -> str:
        return await commit_tree(self._git, mirror, tree, over, environment=held.environment)

    async def _keep(self, mirror: Path, session_id: str, commit: str) -> None:
        """Move the session's private ref from what it is now; a commit that only it knows is never collected."""
        ref = session_ref(session_id)
        now = (await self._git.run("rev-parse", "--verify", "--quiet", "--end-of-options", ref, git_dir=mirror, accept=(0, 1))).text
        if now != commit:
            await self._git.run("update-ref", "--no-deref", ref, commit, now or _ZERO, git_dir=mirror)


async def commit_tree(
    git: Git, mirror: Path, tree: str, over: Parentage, *, merged: str = "", environment: Mapping[str, str] | None = None
) -> str:
    """A commit of a tree, also on top of `merged` if there is one; nothing keeps it yet. Errors: GitFailed."""
    date = f"@{int(over.at.timestamp())} +0000"
    identity = {
        "GIT_AUTHOR_NAME": over.author.name, "GIT_AUTHOR_EMAIL": over.author.email, "GIT_AUTHOR_DATE": date,
        "GIT_COMMITTER_NAME": over.author.name, "GIT_COMMITTER_EMAIL": over.author.email, "GIT_COMMITTER_DATE": date,
    }  # fmt: skip
    parents = ["-p", over.parent, *(["-p", merged] if merged else [])]
    made = await git.run(
        "commit-tree", tree, *parents, git_dir=mirror, stdin=_clean(over.message), environment={**(environment or {}), **identity}
    )
    return made.text


def _understand(answer: IO[bytes], listing: bytes, limits: Limits) -> Manifest:
    """Read the walker's records; what stays of its answer is the pack."""
    pack, length = measure(answer, base_bytes=len(listing), limits=limits)
    records = read_records(answer, pack, length, limits=limits)
    first = next(records, b"")
    # What is left out is told last: where that is all, nothing is compared with the base.
    base = {} if first.startswith(b"! ") else parse_base(listing)
    manifest = parse(chain([first], records), base=base, limits=limits)
    cut(answer, pack)
    return manifest


def _index_info(changes: Changes) -> bytes:
    """For `git update-index --index-info`; removals first, so that a file may take the place of a directory."""
    removals = [b"0 %s\t%s\0" % (_ZERO.encode(), path) for path in changes.deleted]
    return b"".join(removals + [b"%s %s\t%s\0" % (mode, identity, path) for path, (mode, identity) in changes.changed.items()])


def _words(message: bytes) -> str:
    """What the agent says of its commit: text that no terminal obeys, and that reads in the direction in which it is written."""
    text = ESCAPE_SEQUENCE.sub("", message.decode("utf-8", "replace")).replace("\r\n", "\n")
    text = "".join(character for character in text if character.isprintable() or character in "\n\t")
    text = "\n".join(line for line in text.split("\n") if not _SIGNATURE.match(line)).strip()
    return text and text + "\n"


def _between(start: datetime, seconds: int) -> datetime:
    """When a commit says that it was made; `start`, where that cannot be. (Not now: made again, it would be another commit.)"""
    return datetime.fromtimestamp(seconds, UTC) if start.timestamp() <= seconds <= datetime.now(UTC).timestamp() else start


def _clean(message: str) -> bytes:
    return message.encode("utf-8", "replace").replace(b"\0", b"")
