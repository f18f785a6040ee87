"""Reads one hostile file or link: never more than was announced, never through a link, never something that blocks."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

_WHOLE = 4 * 1024 * 1024
_CHUNK = 1024 * 1024


class Content(NamedTuple):
    """A blob to be: its id, its size, and its bytes (again from the file when it is large)."""

    id: bytes
    size: int
    whole: bytes | None
    descriptor: int

    def chunks(self) -> Iterator[bytes]:
        """The bytes, for packing."""
        if self.whole is not None:
            yield self.whole
        else:
            os.lseek(self.descriptor, 0, os.SEEK_SET)
            yield from _exactly(self.descriptor, self.size)


def link(name: bytes, directory: int) -> Content:
    """A symbolic link's target, as git stores it."""
    target = os.readlink(name, dir_fd=directory)
    return Content(_of_whole(target), len(target), target, -1)


def regular(descriptor: int, size: int) -> Content:
    """An open file's content: exactly `size` bytes, zeros where it became shorter."""
    if size <= _WHOLE:
        whole = os.read(descriptor, size).ljust(size, b"\0")
        return Content(_of_whole(whole), size, whole, descriptor)
    return Content(_identity(size, _exactly(descriptor, size)), size, None, descriptor)


def open_regular(name: bytes, directory: int) -> tuple[int, os.stat_result]:
    """Open a file that must be a regular one. Errors: OSError, also when it is none."""
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise OSError("not a regular file")
    return descriptor, status


def _exactly(descriptor: int, size: int) -> Iterator[bytes]:
    while size > 0:
        chunk = os.read(descriptor, min(size, _CHUNK)) or bytes(min(size, _CHUNK))
        size -= len(chunk)
        yield chunk


def _of_whole(content: bytes) -> bytes:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest().encode()


def _identity(size: int, chunks: Iterator[bytes]) -> bytes:
    digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest().encode()
