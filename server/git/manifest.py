"""Reads the walker's answer as what it is: hostile bytes."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO

from server.git.walker.names import is_gitattributes, is_gitmodules, is_safe_path
from server.git.walker.protocol import FILE_MODES, FOOTER_BYTES, GITLINK, MAGIC, SAME, Base, Limits, freely_named
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


def parse(records: Iterable[bytes], *, base: Mapping[bytes, Base], limits: Limits) -> Manifest:
    """Check every record against the base. Errors: WorkspaceFailed for anything that no correct walker says."""
    manifest = Manifest()
    seen: set[bytes] = set()
    names = 0
    fields = map(_fields, records)
    for mode, identity, path in fields:
        if mode == b"commit" and not manifest.commits and not seen:
            base = _History(manifest, base, limits).read(mode, identity, path, fields)
            continue
        if mode == b"!":
            _skipped(manifest, identity, path, limits)
            continue
        names += 0 if path in base else len(path)
        if path in seen or len(seen) > len(base) + limits.entries or names > limits.names_bytes:
            raise WorkspaceFailed("the walker's answer repeats a path, or holds too many")
        seen.add(path)
        _entry(manifest, path, mode, identity, base.get(path))
    manifest.deleted = [path for path in base if path not in seen]
    manifest.judged_before -= manifest.claimed
    return manifest


def _fields(record: bytes) -> tuple[bytes, bytes, bytes]:
    meta, tab, path = record.partition(b"\t")
    mode, space, identity = meta.partition(b" ")
    if not tab or not space:
        raise WorkspaceFailed("the walker's answer holds a malformed record")
    return mode, identity, path


class _History:
    """The records of the agent's own commits. Each names blobs of the base, or of the walker's pack, and no other."""

    def __init__(self, manifest: Manifest, base: Mapping[bytes, Base], limits: Limits) -> None:
        self._manifest = manifest
        self._base = base
        self._limits = limits
        self._tree = dict(base)
        self._free = freely_named(base)
        self._judged = [path for path, entry in base.items() if entry.mode != GITLINK and is_judged(path.rpartition(b"/")[2])]
        self._changes = 0
        self._names = 0

    def read(self, mode: bytes, identity: bytes, path: bytes, records: Iterator[tuple[bytes, bytes, bytes]]) -> Mapping[bytes, Base]:
        """From the first record, which was taken already, to the end of the commits; what the last one holds."""
        while mode != b"tree":
            if mode == b"commit":
                if self._manifest.commits:
                    self._keep_judged()
                self._begin(identity, path)
            else:
                self._change(self._manifest.commits[-1], mode, identity, path)
            mode, identity, path = next(records, (b"tree", b"", b""))
        self._keep_judged()
        return self._tree

    def _begin(self, seconds: bytes, message: bytes) -> None:
        too_long = len(message) > self._limits.message_bytes or len(seconds) > _SECONDS_DIGITS
        if too_long or not seconds.isdigit() or len(self._manifest.commits) >= self._limits.commits:
            raise WorkspaceFailed("the walker's answer holds a commit that may not be")
        self._manifest.commits.append(AgentCommit(seconds=int(seconds), message=message))

    def _change(self, commit: AgentCommit, mode: bytes, identity: bytes, path: bytes) -> None:
        self._changes += 1
        self._names += len(path)
        if path in commit.changed or self._changes > self._limits.entries or self._names > self._limits.names_bytes:
            raise WorkspaceFailed("the walker's answer repeats a path, or holds too many")
        if mode == b"delete":
            if self._tree.pop(path, None) is None:
                raise WorkspaceFailed("the walker's answer deletes what is not there")
            commit.deleted.append(path)
            return
        if mode not in FILE_MODES or not is_safe_path(path) or not _ID.match(identity):
            raise WorkspaceFailed("the walker's answer holds a path or mode that may not be")
        held = self._base.get(path)
        stays = held is not None and held.id == identity and held.mode != GITLINK
        if not stays and (identity not in self._free or is_judged(path.rpartition(b"/")[2])):
            self._manifest.claimed.add(identity)
        self._tree[path] = Base(mode, identity, 0)
        commit.changed[path] = (mode, identity)

    def _keep_judged(self) -> None:
        """Those that are where the base has them, in the tree so far."""
        for path in self._judged:
            entry = self._tree.get(path)
            if entry is not None and entry.id == self._base[path].id:
                self._manifest.judged_before.add(entry.id)


def _entry(manifest: Manifest, path: bytes, mode: bytes, identity: bytes, held: Base | None) -> None:
    if identity == SAME and held is not None and is_judged(path.rpartition(b"/")[2]):
        manifest.judged_before.add(held.id)
    if identity == SAME and held is not None and mode == held.mode:
        return
    if mode not in FILE_MODES or not is_safe_path(path):
        raise WorkspaceFailed("the walker's answer holds a path or mode that may not be")
    if identity == SAME and held is not None and held.mode != GITLINK:
        manifest.changed[path] = (mode, held.id)
    elif _ID.match(identity):
        manifest.changed[path] = (mode, identity)
        manifest.claimed.add(identity)
    else:
        raise WorkspaceFailed("the walker's answer names no object")


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
