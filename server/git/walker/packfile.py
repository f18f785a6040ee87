"""Writes a pack to a seekable file (gitformat-pack(5), version 2, no deltas)."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterable
from typing import IO

_KINDS = {"commit": 1, "tree": 2, "blob": 3}
_COPY = 1024 * 1024


class Pack:
    """Each object is written once, whatever the number of paths that hold it."""

    def __init__(self, target: IO[bytes]) -> None:
        self._target = target
        self._ids: set[bytes] = set()
        self._target.write(b"PACK" + struct.pack(">II", 2, 0))

    def add(self, identity: bytes, size: int, chunks: Iterable[bytes], *, kind: str = "blob") -> bytes:
        """Write one object of exactly `size` bytes, unless it is in already. Returns the id of what was written."""
        if identity in self._ids:
            return identity
        self._target.write(_header(_KINDS[kind], size))
        compressor = zlib.compressobj(1)
        digest = hashlib.sha1(b"%s %d\0" % (kind.encode(), size), usedforsecurity=False)
        for chunk in chunks:
            digest.update(chunk)
            self._target.write(compressor.compress(chunk))
        self._target.write(compressor.flush())
        written = digest.hexdigest().encode()
        self._ids.add(written)
        return written

    def holds(self, identity: bytes) -> bool:
        """Whether this object is in it."""
        return identity in self._ids

    def finish(self) -> int:
        """Put the number of objects and the check sum in place; returns the pack's length in bytes."""
        self._target.seek(8)
        self._target.write(struct.pack(">I", len(self._ids)))
        self._target.seek(0)
        digest = hashlib.sha1(usedforsecurity=False)
        while chunk := self._target.read(_COPY):
            digest.update(chunk)
        self._target.write(digest.digest())
        return self._target.tell()


def _header(kind: int, size: int) -> bytes:
    byte, size = (kind << 4) | (size & 0x0F), size >> 4
    encoded = bytearray()
    while size:
        encoded.append(byte | 0x80)
        byte, size = size & 0x7F, size >> 7
    encoded.append(byte)
    return bytes(encoded)
