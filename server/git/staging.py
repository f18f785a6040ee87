"""Contents that are too large for the memory, on their way into a mirror: as loose objects without a name (gitformat-loose(5))."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from isal import isal_zlib

from server.git.mirror import UNFINISHED, to_its_end
from server.kernel.ports.trees import Staged

_CHUNK = 256 * 1024


@asynccontextmanager
async def staged(mirror: Path, size: int, chunks: AsyncIterator[bytes]) -> AsyncIterator[Staged]:
    """See Trees.staged; who calls holds the mirror. Errors: OSError, those of `chunks`."""
    file = mirror / "objects" / f"{UNFINISHED}{secrets.token_hex(8)}"
    try:
        yield await _write(file, size, chunks)
    finally:
        await to_its_end(lambda: file.unlink(missing_ok=True))


async def _write(path: Path, size: int, chunks: AsyncIterator[bytes]) -> Staged:
    # A blob's id begins with its size: that has to be known before.
    header = b"blob %d\0" % size
    digest, compressor = hashlib.sha1(header, usedforsecurity=False), isal_zlib.compressobj(1)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444), "wb", buffering=0) as file:

        def add(data: bytes) -> None:
            digest.update(data)
            _all(file.fileno(), compressor.compress(data))

        def finish() -> None:
            _all(file.fileno(), compressor.flush())
            os.fsync(file.fileno())

        _all(file.fileno(), compressor.compress(header))
        # Who leaves meanwhile waits for the thread: it writes into what would be closed under it.
        async for chunk in chunks:
            await to_its_end(partial(add, chunk))
        await to_its_end(finish)
    return Staged(digest.hexdigest(), size, path)


def _all(descriptor: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def place(mirror: Path, content: Staged) -> None:
    """Give it its name in the mirror; durable when this returns. Blocks. Errors: OSError."""
    directory = mirror / "objects" / content.id[:2]
    directory.mkdir(exist_ok=True)
    target = directory / content.id[2:]
    with contextlib.suppress(FileExistsError):
        os.link(content.file, target)
    # One that was there, and that nothing names, may be about to be removed for its age.
    os.utime(target)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def content_of(content: Staged) -> Iterator[bytes]:
    """Its bytes, in pieces. Blocks. Errors: OSError."""
    inflater = zlib.decompressobj()
    header = True
    with content.file.open("rb", buffering=0) as file:
        while data := inflater.unconsumed_tail or file.read(_CHUNK):
            piece = inflater.decompress(data, _CHUNK)
            if header and piece:
                piece, header = piece[piece.index(b"\0") + 1 :], False
            if piece:
                yield piece
        yield inflater.flush()
