"""The commits that the agent made itself, in the workspace's own `.git`: read without git, and told as changes of trees.

Nothing of it is passed on as it is: of a commit its time and message, of its tree what differs from the commit before. The trusted side
makes commits of its own from that. Whatever is not as an honest git leaves it ends the reading, and the work is one commit then.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NamedTuple

from server.git.walker.head import head_commit
from server.git.walker.names import is_gitattributes, is_gitmodules
from server.git.walker.objects import Budget, Objects, Odd
from server.git.walker.packfile import Pack
from server.git.walker.protocol import FILE_MODES, GITLINK, Base, ChangedTree, Limits, Start, freely_named
from server.git.walker.screen import refused_content, refused_name

_COMMIT_BYTES = 1024 * 1024
_TREE_BYTES = 16 * 1024 * 1024
_EXAMINED_PER_ENTRY = 10
_KEPT_TREES = 256
_KEPT_ENTRIES = 2000
_TREE = b"40000"
_LINK = b"120000"
_HEADERS = re.compile(rb"tree ([0-9a-f]{40})\n((?:parent [0-9a-f]{40}\n)*)author [^\n]*> ([0-9]{1,12}) [+-][0-9]{4}\n")
_MODE = re.compile(rb"[1-7][0-7]{4,5}\Z")

Entries = Mapping[bytes, tuple[bytes, bytes]]
"""What a directory holds: name -> (mode, id)."""


class _Commit(NamedTuple):
    tree: bytes
    parent: bytes
    seconds: int
    message: bytes


class History:
    """Reads what was committed since the turn's start; `tree` is what the last commit holds, the base's where there is none."""

    def __init__(self, *, base: Mapping[bytes, Base], start: Start, limits: Limits, pack: Pack) -> None:
        self.tree = ChangedTree(base)
        self.records: list[bytes] = []
        self._start = start
        self._limits = limits
        self._pack = pack
        self._budget = Budget(cpu_seconds=limits.history_seconds, total_bytes=limits.history_bytes)
        self._base = base
        self._free: frozenset[bytes] = frozenset()
        self._sizes: dict[bytes, int] = {}
        self._changes = 0
        self._names = 0
        self._examined = 0
        self._read: dict[bytes, Entries] = {}

    def read(self, git: int) -> None:
        """From the directory `.git`, open as `git`. Errors: Odd, OSError."""
        head = head_commit(git)
        if head == self._start.commit:
            return
        self._objects = Objects(git, self._budget)
        try:
            commits = self._since_the_start(head)
            self._free = freely_named(self._base)
            self._sizes = {entry.id: entry.size for entry in self._base.values()}
            before = self._start.tree
            for commit in commits:
                self.records.append(b"commit %d\t%s\0" % (commit.seconds, commit.message))
                self._compare(before, commit.tree, b"", depth=0)
                before = commit.tree
            self.records.append(b"tree -\t\0")
        finally:
            self._objects.close()

    def _since_the_start(self, head: bytes) -> list[_Commit]:
        """The chain of first parents, oldest first; of a merge there is what it changed."""
        found: list[_Commit] = []
        while head != self._start.commit:
            if len(found) == self._limits.commits:
                raise Odd("the turn's start is not among the last commits")
            found.append(self._commit(head))
            head = found[-1].parent
        return found[::-1]

    def _commit(self, identity: bytes) -> _Commit:
        headers, end, message = self._objects.read(identity, b"commit", most=_COMMIT_BYTES).partition(b"\n\n")
        found = _HEADERS.match(headers + b"\n")
        if not end or not found or not found[2]:
            raise Odd("a malformed commit, or the first of another history")
        return _Commit(found[1], found[2][7:47], int(found[3]), message.partition(b"\0")[0][: self._limits.message_bytes])

    def _compare(self, old: bytes, new: bytes, prefix: bytes, *, depth: int) -> None:
        """Records how a directory differs; an empty id is no directory."""
        if depth > self._limits.depth:
            raise Odd("a deep tree")
        before, after = self._entries(old), self._entries(new)
        for name, (mode, identity) in before.items():
            if after.get(name) != (mode, identity):
                if mode == _TREE:
                    replaced = after.get(name, (b"", b""))
                    self._compare(identity, replaced[1] if replaced[0] == _TREE else b"", prefix + name + b"/", depth=depth + 1)
                elif name not in after or after[name][0] == _TREE:
                    self._remove(prefix + name)
        for name, (mode, identity) in after.items():
            held = before.get(name, (b"", b""))
            if held == (mode, identity):
                continue
            if mode != _TREE:
                self._put(prefix, name, mode, identity)
            elif held[0] != _TREE:
                self._compare(b"", identity, self._screened(prefix, name, is_directory=True) + b"/", depth=depth + 1)

    def _entries(self, identity: bytes) -> Entries:
        if not identity:
            return {}
        # What a commit leaves, the next one begins with.
        found = self._read.pop(identity, None) or self._parsed(identity)
        if len(found) <= _KEPT_ENTRIES:
            self._read[identity] = found
            if len(self._read) > _KEPT_TREES:
                del self._read[next(iter(self._read))]
        self._examined += len(found)
        if self._examined > self._limits.entries * _EXAMINED_PER_ENTRY:
            raise Odd("too many entries")
        return found

    def _parsed(self, identity: bytes) -> Entries:
        content = self._objects.read(identity, b"tree", most=_TREE_BYTES)
        found: dict[bytes, tuple[bytes, bytes]] = {}
        position = 0
        while position < len(content):
            end = content.find(b"\0", position)
            mode, space, name = content[position:end].partition(b" ")
            position = end + 21
            if end < 0 or position > len(content) or not space or not _MODE.match(mode) or not name or b"/" in name or name in found:
                raise Odd("a malformed tree")
            found[name] = (mode, content[end + 1 : position].hex().encode())
        return found

    def _remove(self, path: bytes) -> None:
        self._count(path)
        if not self.tree.remove(path):
            raise Odd("a path that was not there")
        self.records.append(b"delete -\t%s\0" % path)

    def _put(self, prefix: bytes, name: bytes, mode: bytes, identity: bytes) -> None:
        path = self._screened(prefix, name, is_directory=False)
        self._count(path)
        if mode not in FILE_MODES:
            raise Odd("neither a file nor a link")
        held = self._base.get(path)
        judged = is_gitmodules(name) or is_gitattributes(name)
        stays = held is not None and held.id == identity and held.mode != GITLINK
        if not stays and (judged or identity not in self._free):
            self._take(name, mode, identity, judged=judged)
        self.tree.put(path, Base(mode, identity, self._sizes[identity]))
        self.records.append(b"%s %s\t%s\0" % (mode, identity, path))

    def _take(self, name: bytes, mode: bytes, identity: bytes, *, judged: bool) -> None:
        """The bytes come along: what is named must be there."""
        if self._pack.holds(identity) and not judged:
            return
        content = self._objects.read(identity, b"blob", most=self._limits.file_bytes)
        if judged and (mode == _LINK or refused_content(name, content)):
            raise Odd("a file that git refuses")
        self._pack.add(identity, len(content), [content])
        self._sizes[identity] = len(content)

    def _screened(self, prefix: bytes, name: bytes, *, is_directory: bool) -> bytes:
        """The path, where the walk would take it."""
        if name in {b".", b".."} or refused_name(name, is_directory=is_directory) or len(prefix + name) > self._limits.path_bytes:
            raise Odd("a name that may not be")
        return prefix + name

    def _count(self, path: bytes) -> None:
        self._changes += 1
        self._names += len(path)
        if self._changes > self._limits.entries or self._names > self._limits.names_bytes:
            raise Odd("too many changes")


def read_history(history: History, root: int) -> bool:
    """Read it, if the tree that is open as `root` has a `.git`; False when there is one whose commits cannot be kept."""
    try:
        git = os.open(".git", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        history.read(git)
    except Exception:  # noqa: BLE001 - whatever it was made of, the tree itself is still to be read
        return False
    finally:
        os.close(git)
    return True
