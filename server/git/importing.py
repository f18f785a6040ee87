"""Zone I, the trusted half: from the walker's answer to a commit under the session's private ref."""

from __future__ import annotations

import asyncio
import os
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO

import structlog

from server.git.base_tree import write_all, write_base
from server.git.command import Git, GitFailed
from server.git.growth import Growth
from server.git.isolation import walk
from server.git.keeping import keep
from server.git.manifest import Manifest, cut, keep_missing, measure, parse, read_records
from server.git.objects import ObjectMissing, Objects
from server.git.quarantine import Quarantine, quarantine
from server.git.walker.protocol import BaseTree, Limits, Start
from server.kernel.errors import WorkspaceFailed
from server.kernel.escapes import ESCAPE_SEQUENCE
from server.kernel.ports.repositories import Author, Imported, KeptCommit
from server.sandbox.bubblewrap import Sandbox
from server.sandbox.listing import beside

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
    until: datetime | None = None
    """The latest that a commit of the agent's can say of itself; None is `at`."""
    trailers: str = ""
    """What stands below the words of the agent's own commits; in `message` it is already."""


@dataclass(frozen=True)
class Given:
    """A workspace as it came back; beside a `listed` one lies the list of how it was given away (server/sandbox/listing.py)."""

    path: Path
    listed: bool
    keep_missing: bool = False
    """Whether what the parent has and the workspace has not stays."""


class Importer:
    """Imports workspaces into mirrors. The caller uses the mirror, or has it alone."""

    def __init__(self, git: Git, objects: Objects, sandbox: Sandbox | None, limits: Limits, *, seconds: float) -> None:
        self._git = git
        self._objects = objects
        self._sandbox = sandbox
        self._limits = limits
        self._seconds = seconds

    async def run(self, mirror: Path, *, session_id: str, workspace: Given, over: Parentage) -> Imported:
        """Read, compare, and commit if something changed. Errors: WorkspaceFailed."""
        try:
            return await self._run(mirror, session_id, workspace, over, self._limits)
        except _CommitsRefused as error:
            log.warning("import.commits_not_kept", error=error.message)
            return await self._run(mirror, session_id, workspace, over, self._limits._replace(commits=0))

    async def _run(self, mirror: Path, session_id: str, workspace: Given, over: Parentage, limits: Limits) -> Imported:
        try:
            async with quarantine(self._git, mirror) as held:
                imported = await self._import(mirror, held, workspace, over, limits)
                await keep(self._git, self._objects, mirror, session_id, imported.commit or over.parent, only_forward=False)
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
            await keep(self._git, self._objects, mirror, session_id, made, only_forward=False)
        except GitFailed as error:
            raise WorkspaceFailed(f"the commit's message could not be changed: {error.reason}") from error
        return made

    async def _import(self, mirror: Path, held: Quarantine, workspace: Given, over: Parentage, limits: Limits) -> Imported:
        async with self._objects.reader(mirror) as reader:
            (found,) = await reader.infos([f"{over.parent}^{{tree}}"])
        if found is None:
            raise ObjectMissing(over.parent)
        tree = found.id
        with (
            (held.directory / "request").open("w+b", buffering=0) as request,
            (held.directory / "answer").open("w+b", buffering=0) as answer,
        ):
            await asyncio.to_thread(_ask, request, workspace, Start(over.parent.encode(), tree.encode()), limits)
            begun = request.tell()
            await walk(
                self._sandbox,
                workspace.path,
                request=request,
                complete=partial(write_base, self._git, mirror, tree, request),
                limits=limits,
                answer=answer,
                seconds=self._seconds,
            )
            # It takes time in proportion to the tree, not to the change: off the loop.
            manifest = await asyncio.to_thread(_understand, answer, request, begun, limits, keep=workspace.keep_missing)
            try:
                if manifest.claimed:
                    await held.take(answer, manifest.claimed, max_bytes=2 * limits.total_bytes)
                made = await self._make(mirror, held, tree, manifest, over)
            except (GitFailed, WorkspaceFailed) as error:
                if manifest.commits:
                    raise _CommitsRefused(f"the agent's commits could not be kept: {error}") from error
                raise
        deleted = len(manifest.deleted)
        return replace(made, skipped=tuple(manifest.skipped), skipped_count=manifest.skipped_count, deleted_count=deleted)

    async def _make(self, mirror: Path, held: Quarantine, tree: str, manifest: Manifest, over: Parentage) -> Imported:
        """The agent's commits, made anew, and on top of them what it did not commit."""
        if manifest.none and not manifest.commits:
            return Imported(None, tree)
        growth = Growth()
        async with self._objects.reader(mirror) as reader:
            await growth.open(reader, tree, chain.from_iterable(each.paths for each in (*manifest.commits, manifest)))
        made = await asyncio.to_thread(_grow, growth, tree, manifest, over)
        await held.add(growth.new)
        await held.release(made.commit or over.parent, over.parent, kept=manifest.judged_before)
        return made


def _ask(request: IO[bytes], workspace: Given, start: Start, limits: Limits) -> None:
    """All of the request but the base tree. Where no list was made, every file is read."""
    listing = b""
    if workspace.listed:
        with suppress(FileNotFoundError):
            listing = beside(workspace.path).read_bytes()
    write_all(request, limits.dump() + start.dump() + b"%d\n" % len(listing) + listing)


def _grow(growth: Growth, tree: str, manifest: Manifest, over: Parentage) -> Imported:
    """The agent's commits, made anew, and on top of them what it did not commit."""
    parent, at = over.parent, over.at
    kept: list[KeptCommit] = []
    for commit in manifest.commits:
        tree, at = growth.change(commit), _between(at, over.until or over.at, commit.seconds)
        words = _words(commit.message)
        told = words + over.trailers if words else over.message
        parent = growth.commit(tree, parent, author=over.author, at=at, message=told)
        kept.append(KeptCommit(parent, told))
    if not manifest.none:
        tree = growth.change(manifest)
        parent = growth.commit(tree, parent, author=over.author, at=at, message=over.message)
    return Imported(parent, tree, kept=tuple(kept))


async def commit_tree(git: Git, mirror: Path, tree: str, over: Parentage, *, merged: str = "") -> str:
    """A commit of a tree, also on top of `merged` if there is one; nothing keeps it yet. Errors: GitFailed."""
    date = f"@{int(over.at.timestamp())} +0000"
    identity = {
        "GIT_AUTHOR_NAME": over.author.name, "GIT_AUTHOR_EMAIL": over.author.email, "GIT_AUTHOR_DATE": date,
        "GIT_COMMITTER_NAME": over.author.name, "GIT_COMMITTER_EMAIL": over.author.email, "GIT_COMMITTER_DATE": date,
    }  # fmt: skip
    parents = ["-p", over.parent, *(["-p", merged] if merged else [])]
    made = await git.run("commit-tree", tree, *parents, git_dir=mirror, stdin=_clean(over.message), environment=identity)
    return made.text


def _understand(answer: IO[bytes], request: IO[bytes], base_at: int, limits: Limits, *, keep: bool) -> Manifest:
    """Read the walker's records; what stays of its answer is the pack. The base is what the request ends with."""
    base = BaseTree(os.pread(request.fileno(), os.fstat(request.fileno()).st_size - base_at, base_at))
    pack, length = measure(answer, base_bytes=base.listing_bytes, limits=limits)
    manifest = parse(read_records(answer, pack, length, limits=limits), base=base, limits=limits)
    if keep:
        keep_missing(manifest, base)
    cut(answer, pack)
    return manifest


def _words(message: bytes) -> str:
    """What the agent says of its commit: text that no terminal obeys, and that reads in the direction in which it is written."""
    text = ESCAPE_SEQUENCE.sub("", message.decode("utf-8", "replace")).replace("\r\n", "\n")
    text = "".join(character for character in text if character.isprintable() or character in "\n\t")
    text = "\n".join(line for line in text.split("\n") if not _SIGNATURE.match(line)).strip()
    return text and text + "\n"


def _between(start: datetime, end: datetime, seconds: int) -> datetime:
    """When a commit says that it was made; `start`, where that cannot be. (Nothing of now: made again, it would be another commit.)"""
    return datetime.fromtimestamp(seconds, UTC) if start.timestamp() <= seconds <= end.timestamp() else start


def _clean(message: str) -> bytes:
    return message.encode("utf-8", "replace").replace(b"\0", b"")
