"""A second process of the walker, which looks at the tree from its other end.

What a walk costs is mostly the kernel's, and two processors take half as long for it. The second process only says in which directories
there are files alone, and all look as listed (server/sandbox/listing.py): it opens no file. Whatever it does not say, or not yet, the
walk looks at itself.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

from server.git.walker.protocol import Limits
from server.sandbox.listing import is_as_listed, look, parts, read

if TYPE_CHECKING:
    from server.sandbox.listing import Directory

_WORTH_BYTES = 256 * 1024
"""Of a list: some 5,000 files, for which a walk takes as long as the second process does to start."""
_AT_ONCE = 16 * 1024
_PIPE_BYTES = 1024 * 1024
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Ahead:
    """What the second process has said so far."""

    def __init__(self, source: int, process: int) -> None:
        self._source = source
        self._process = process
        self._rest = b""
        self._seen: set[bytes] = set()

    def saw(self, prefix: bytes) -> bool:
        """Whether a directory has files alone, which all look as listed. False, too, where the second process has not come to yet."""
        if prefix not in self._seen:
            self._listen()
        if prefix not in self._seen:
            return False
        self.close()  # here they meet: what comes behind it, the other one has seen before
        return True

    def close(self) -> None:
        """End the second process."""
        if self._source >= 0:
            os.close(self._source)
            self._source = -1
            os.kill(self._process, signal.SIGKILL)
            os.waitpid(self._process, 0)

    def _listen(self) -> None:
        with suppress(BlockingIOError):
            while self._source >= 0 and (chunk := os.read(self._source, _PIPE_BYTES)):
                *whole, self._rest = (self._rest + chunk).split(b"\0")
                self._seen.update(whole)


def look_ahead(workspace: str, listing: bytes, limits: Limits, restrain: Callable[[], None]) -> Ahead:
    """Start the second process, where the list is long enough; it lays the walker's limits on itself before it looks at anything."""
    if len(listing) < _WORTH_BYTES:
        return Ahead(-1, -1)
    source, target = os.pipe()
    os.set_blocking(source, False)
    with suppress(OSError):  # without it, the other one waits now and then
        fcntl.fcntl(target, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    process = os.fork()
    if process:
        os.close(target)
        return Ahead(source, process)
    try:
        # Nobody shall wait for these to close but for the walker.
        for inherited in (0, 1, 2, source):
            os.close(inherited)
        restrain()
        _tell(_Look(read(listing), limits).tree(workspace), target)
    finally:
        os._exit(0)


def _tell(directories: Iterator[bytes], target: int) -> None:
    with os.fdopen(target, "wb", _AT_ONCE) as walk:
        for prefix in directories:
            walk.write(prefix + b"\0")


class _Look:
    def __init__(self, listed: dict[bytes, Directory], limits: Limits) -> None:
        self._listed = listed
        self._limits = limits
        self._room = limits.entries
        self._device = -1

    def tree(self, workspace: str) -> Iterator[bytes]:
        root = os.open(workspace, _DIRECTORY)
        self._device = os.fstat(root).st_dev
        return self._directory(root, b"", depth=0)

    def _directory(self, directory: int, prefix: bytes, *, depth: int) -> Iterator[bytes]:
        listed = self._listed.get(prefix)
        if listed is not None and is_as_listed(directory, listed):
            names = sorted(parts(listed[2]), reverse=True)
            if not names:
                yield prefix
        else:
            names = yield from self._read(directory, prefix)
        for name in names if depth < self._limits.depth else ():
            if prefix or name != b".git":
                with suppress(OSError):
                    yield from self._below(directory, name, prefix + name + b"/", depth=depth + 1)

    def _read(self, directory: int, prefix: bytes) -> Generator[bytes, None, list[bytes]]:
        """The directories in one that does not look as listed; its files may."""
        with os.scandir(directory) as listing:
            entries = list(islice(listing, self._limits.entries + 1))
        self._room -= len(entries)
        if self._room < 0 or len(entries) > self._limits.entries:
            return []
        names = sorted([os.fsencode(entry.name) for entry in entries if entry.is_dir(follow_symlinks=False)], reverse=True)
        listed = self._listed.get(prefix)
        with suppress(OSError):
            if not names and listed is not None and look(entries) == listed[:2]:
                yield prefix
        return names

    def _below(self, parent: int, name: bytes, prefix: bytes, *, depth: int) -> Iterator[bytes]:
        descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            if os.fstat(descriptor).st_dev == self._device:
                yield from self._directory(descriptor, prefix, depth=depth)
        finally:
            os.close(descriptor)
