"""Reading with the digest taken on the way, in pieces of bounded size."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Generator, Iterable
from typing import BinaryIO

from server.kernel.errors import ObjectCorrupt
from server.kernel.ports.object_store import StoredObject

PIECE_BYTES = 1024 * 1024
"""Large enough that a thread switch per piece does not count, small enough for many streams at a time."""


class Stopped(Exception):
    """The caller has gone; what was begun is to be undone."""


class Source:
    """A file being stored: takes the digest of what is read from it, and refuses to go on once `stop` is set.

    Has the `read` of a binary file, which is what the S3 SDK wants.
    """

    def __init__(self, file: BinaryIO, stop: threading.Event) -> None:
        self._file = file
        self._stop = stop
        self._digest = hashlib.sha256()
        self._size = 0

    def read(self, size: int = PIECE_BYTES) -> bytes:
        """At most `size` bytes, none at the end. Errors: Stopped."""
        piece = self._file.read(size)
        # Asked behind the read, which may have waited long: also its last answer, the end, must not make an object of a cut-off put.
        if self._stop.is_set():
            raise Stopped
        self._digest.update(piece)
        self._size += len(piece)
        return piece

    def stored_as(self, key: str) -> StoredObject:
        """What was read so far, as an object."""
        return StoredObject(key=key, size=self._size, sha256=self._digest.hexdigest())


def verified(key: str, sha256: str, pieces: Iterable[bytes]) -> Generator[bytes, None, None]:
    """Pass pieces on; raises ObjectCorrupt after the last one when together they are not the bytes of `sha256`."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
        yield piece
    if digest.hexdigest() != sha256:
        raise ObjectCorrupt(key)
