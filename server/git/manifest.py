"""Reads the walker's answer as what it is: hostile bytes."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import IO

from server.git.walker.names import is_gitattributes, is_gitmodules, is_safe_path
from server.git.walker.protocol import FILE_MODES, FOOTER_BYTES, GITLINK, MAGIC, SAME, Base, BaseTree, ChangedTree, Limits, freely_named
from server.kernel.errors import WorkspaceFailed
from server.kernel.ports.repositories import Skipped

_ID = re.compile(rb"[0-9a-f]{40}\Z")
_REASONS = frozenset({
    "GIT_DIRECTORY", "TOO_LARGE", "TOO_DEEP", "NOT_A_FILE", "BAD_NAME", "BAD_GITMODULES", "BAD_GITATTRIBUTES", "UNREADABLE", "TOO_MANY",
    "IGNORE_TOO_SLOW", "COMMITS_NOT_KEPT",
})  # fmt: skip
_META_BYTES = 64
_SECONDS_DIGITS = 12
_NAME_BYTES = 256
_CHUNK = 1024 * 1024


@dataclass
class Changes:
    """What one tree has over another."""

    changed: dict[bytes, tuple[bytes, bytes]] = field(default_factory=dict)
    """path -> (mode, blob id)"""
    deleted: list[bytes] = field(default_factory=list)

    @property
    def paths(self) -> Iterator[bytes]:
        """All that differ."""
        yield from self.deleted
        yield from self.changed

    @property
    def none(self) -> bool:
        """Whether the trees are equal."""
        return not self.changed and not self.deleted


@dataclass
class AgentCommit(Changes):
    """A commit of the agent's own, over the one before it. Its words are still hostile."""

    seconds: int = 0
    message: bytes = b""


@dataclass
class Manifest(Changes):
    """What the tree holds, compared with the base (or with what the agent committed last): only changes, and what was left out."""

    commits: list[AgentCommit] = field(default_factory=list)
    """Oldest first."""
    claimed: set[bytes] = field(default_factory=set)
    """Ids that the walker named: each must be a blob of its own pack."""
    judged_before: set[bytes] = field(default_factory=set)
    """Ids of the base's `.gitmodules` and `.gitattributes` that stay where they are, and are nowhere else."""
    skipped: list[Skipped] = field(default_factory=list)
    skipped_count: int = 0


def measure(answer: IO[bytes], *, base_bytes: int, limits: Limits) -> tuple[int, int]:
    """How long the pack is, and the records behind it. Errors: WorkspaceFailed when they are longer than any honest answer."""
    size = answer.seek(0, os.SEEK_END)
    if size < FOOTER_BYTES:
        raise WorkspaceFailed("the walker's answer is incomplete")
    answer.seek(size - FOOTER_BYTES)
    footer = answer.read(FOOTER_BYTES)
    (length,) = struct.unpack(">Q", footer[:8])
    records = size - FOOTER_BYTES - length
    # A record of the base is no longer than its line of `git ls-tree`; one skipped path more tells their number.
    new = limits.names_bytes + limits.entries * _META_BYTES
    if limits.commits:
        new = 2 * new + (limits.commits + 1) * (limits.message_bytes + _META_BYTES)
    most = base_bytes + new + (limits.skipped + 1) * (limits.path_bytes + _NAME_BYTES + _META_BYTES)
    if footer[8:] != MAGIC or not 0 <= records <= most:
        raise WorkspaceFailed("the walker's answer is malformed")
    return length, records


def read_records(answer: IO[bytes], start: int, length: int, *, limits: Limits) -> Iterator[bytes]:
    """The records, one at a time, never all in memory. Errors: WorkspaceFailed for one that is longer than any can be."""
    answer.seek(start)
    rest = b""
    while length > 0 and (chunk := answer.read(min(_CHUNK, length))):
        length -= len(chunk)
        *whole, rest = (rest + chunk).split(b"\0")
        yield from whole
        if len(rest) > max(limits.path_bytes + _NAME_BYTES, limits.message_bytes) + _META_BYTES:
            raise WorkspaceFailed("the walker's answer holds a malformed record")


def cut(answer: IO[bytes], length: int) -> None:
    """Leave only the pack, to be read from its beginning."""
    answer.truncate(length)
    answer.seek(0)


def parse(records: Iterable[bytes], *, base: BaseTree, limits: Limits) -> Manifest:
    """Check every record against the base. Errors: WorkspaceFailed for anything that no correct walker says."""
    reading = _Reading(base, limits)
    for record in records:
        meta, tab, path = record.partition(b"\t")
        mode, space, identity = meta.partition(b" ")
        if not tab or not space:
            raise WorkspaceFailed("the walker's answer holds a malformed record")
        reading.take(mode, identity, path)
    return reading.end()


class _Reading:
    """Each tree in turn: of the agent's commits, if they are told, and of the workspace. `_tree` is what the last one holds so far."""

    def __init__(self, base: BaseTree, limits: Limits) -> None:
        self._manifest = Manifest()
        self._base = base
        self._limits = limits
        self._tree = ChangedTree(base)
        self._into: Changes = self._manifest
        self._room = limits.entries + len(base)
        self._names = 0

    def take(self, mode: bytes, identity: bytes, path: bytes) -> None:
        """The next record. Errors: WorkspaceFailed."""
        if mode == b"!":
            _skipped(self._manifest, identity, path, self._limits)
        elif mode == b"commit":
            self._begin(identity, path)
        elif mode == b"tree" and self._into is not self._manifest:
            self._turn_to(self._manifest)
            self._room, self._names = self._limits.entries + len(self._tree), 0
        elif mode == b"delete":
            self._count(path)
            if not self._tree.remove(path):
                raise WorkspaceFailed("the walker's answer deletes what is not there")
            self._into.deleted.append(path)
        else:
            self._change(mode, identity, path)

    def end(self) -> Manifest:
        """All of it. Errors: WorkspaceFailed."""
        if self._into is not self._manifest:
            raise WorkspaceFailed("the walker's answer ends with a commit")
        if self._manifest.commits or not self._manifest.none:
            self._keep_judged()
            self._manifest.judged_before -= self._manifest.claimed
        return self._manifest

    def _begin(self, seconds: bytes, message: bytes) -> None:
        commits, limits = self._manifest.commits, self._limits
        too_long = len(message) > limits.message_bytes or len(seconds) > _SECONDS_DIGITS
        too_late = self._into is self._manifest and (commits or not self._manifest.none)
        if too_long or too_late or not seconds.isdigit() or len(commits) >= limits.commits:
            raise WorkspaceFailed("the walker's answer holds a commit that may not be")
        if not commits:
            self._room = limits.entries
        commits.append(AgentCommit(seconds=int(seconds), message=message))
        self._turn_to(commits[-1])

    def _turn_to(self, changes: Changes) -> None:
        if self._into is not self._manifest:
            self._keep_judged()
        self._into = changes

    def _count(self, path: bytes) -> None:
        self._room -= 1
        if path not in self._tree:
            self._names += len(path)
        if self._room < 0 or self._names > self._limits.names_bytes:
            raise WorkspaceFailed("the walker's answer holds too many paths")

    def _change(self, mode: bytes, identity: bytes, path: bytes) -> None:
        self._count(path)
        if path in self._into.changed:
            raise WorkspaceFailed("the walker's answer repeats a path")
        if mode not in FILE_MODES or not is_safe_path(path) or path.count(b"/") > self._limits.depth:
            raise WorkspaceFailed("the walker's answer holds a path or mode that may not be")
        before = self._tree.get(path)
        if identity == SAME and before is not None and before.mode != GITLINK:
            identity = before.id
        elif not _ID.match(identity):
            raise WorkspaceFailed("the walker's answer names no object")
        elif not self._may_name(identity, path):
            self._manifest.claimed.add(identity)
        self._tree.put(path, Base(mode, identity, 0))
        self._into.changed[path] = (mode, identity)

    def _may_name(self, identity: bytes, path: bytes) -> bool:
        """Whether a blob need not come along: one that the base has there, or has anywhere where git's fsck does not read it."""
        held = self._base.get(path)
        if held is not None and held.id == identity and held.mode != GITLINK:
            return True
        # Of the workspace itself each new content comes along; to look for it costs as much as the tree is large.
        return bool(self._manifest.commits) and identity in self._free and not is_judged(path.rpartition(b"/")[2])

    @cached_property
    def _free(self) -> frozenset[bytes]:
        return freely_named(self._base)

    @cached_property
    def _judged(self) -> list[bytes]:
        return [path for path in self._base.unusual() if is_judged(path.rpartition(b"/")[2]) and self._base[path].mode != GITLINK]

    def _keep_judged(self) -> None:
        """Those that are where the base has them, in the tree so far."""
        for path in self._judged:
            entry = self._tree.get(path)
            if entry is not None and entry.id == self._base[path].id:
                self._manifest.judged_before.add(entry.id)


def keep_missing(manifest: Manifest, base: Mapping[bytes, Base]) -> None:
    """Of what the base has and the tree has not, take away only what stands where the tree has something else: a file for a directory."""
    above = {folder for path in manifest.changed for folder in folders(path)}
    gone = [path for path in manifest.deleted if path in above or any(folder in manifest.changed for folder in folders(path))]
    stay = {*manifest.deleted} - {*gone}
    judged = {base[path].id for path in stay if is_judged(path.rpartition(b"/")[2]) and base[path].mode != GITLINK}
    manifest.judged_before |= judged - manifest.claimed
    manifest.deleted = gone


def folders(path: bytes) -> Iterator[bytes]:
    """All that lead to a path, the nearest first."""
    while b"/" in path:
        path = path[: path.rindex(b"/")]
        yield path


def is_judged(name: bytes) -> bool:
    """Whether git's fsck reads files of this name."""
    return is_gitmodules(name) or is_gitattributes(name)


def _skipped(manifest: Manifest, reason: bytes, path: bytes, limits: Limits) -> None:
    if reason == b"COUNT" and path.isdigit() and len(path) < 16:
        manifest.skipped_count = int(path)
    elif (name := reason.decode("ascii", "replace")) in _REASONS and len(manifest.skipped) < limits.skipped:
        manifest.skipped.append(Skipped(printable(path[: limits.path_bytes]), name))
    else:
        raise WorkspaceFailed("the walker's answer holds a malformed record")


def printable(path: bytes) -> str:
    """A path as text that any reader can take: what is no UTF-8 is spelled out."""
    return path.decode("utf-8", "backslashreplace")
