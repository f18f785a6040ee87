"""Collects what the walk found, as the records of protocol.py."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from functools import cached_property

from server.git.walker.protocol import SAME, BaseTree


class Records:
    """The answer's second part: what is not as in the base. What is left out keeps the base's entries: an import never deletes what it
    could not read."""

    def __init__(self, base: BaseTree, *, longest: int) -> None:
        self._base = base
        self._longest = longest
        self._skipped = 0
        self._seen: set[bytes] = set()
        self._seen_whole: set[bytes] = set()
        """Directories: all files that the base has in them."""
        self._found: list[bytes] = []
        self._left_out: list[bytes] = []

    def same(self, path: bytes, mode: bytes) -> None:
        """A file or link of the tree with the content that the base has there."""
        self._seen.add(path)
        if self._base[path].mode != mode:
            self._found.append(b"%s %s\t%s\0" % (mode, SAME, path))

    def found(self, path: bytes, mode: bytes, identity: bytes) -> None:
        """A file or link with another content."""
        self._seen.add(path)
        self._found.append(b"%s %s\t%s\0" % (mode, identity, path))

    def same_files(self, directory: bytes) -> None:
        """A directory in which are those files and links that the base has there, in every way as it has them."""
        self._seen_whole.add(directory)

    def keep(self, path: bytes) -> None:
        """Whatever the base has at the path or below it."""
        self._seen.add(path)
        self._seen_whole.update(self._below(path + b"/" if path else b""))

    def skip(self, path: bytes, reason: str) -> None:
        """Leave the path out, and all below it, and say why."""
        self.keep(path)
        self.note(path, reason)

    def note(self, path: bytes, reason: str) -> None:
        """Say that something about the path is not as one may expect."""
        self._skipped += 1
        if self._skipped <= self._longest:
            self._left_out.append(b"! %s\t%s\0" % (reason.encode(), path))

    def holds_below(self, directory: bytes) -> bool:
        """Whether the base has an entry below the directory."""
        return directory + b"/" in self._base.directories

    def dump(self) -> bytes:
        """All records: what differs, what is gone, and what was left out."""
        open_ = self._base.directories - self._seen_whole
        gone = [b"delete -\t%s\0" % path for directory in sorted(open_) for path in self._base.files(directory) if path not in self._seen]
        return b"".join([*self._found, *gone, *self._left_out, b"! COUNT\t%d\0" % self._skipped])

    def _below(self, prefix: bytes) -> Iterator[bytes]:
        """Those directories of the base."""
        position = bisect_left(self._sorted, prefix)
        while position < len(self._sorted) and self._sorted[position].startswith(prefix):
            yield self._sorted[position]
            position += 1

    @cached_property
    def _sorted(self) -> list[bytes]:
        return sorted(self._base.directories)
