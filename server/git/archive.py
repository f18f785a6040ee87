"""Archives of a tree, packed here: `git archive` would do what the tree's own `.gitattributes` says (export-subst, export-ignore)."""

from __future__ import annotations

import asyncio
import stat
import tarfile
import zipfile
import zlib
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from typing import IO, Any, Protocol, cast

from isal import isal_zlib

from server.git.manifest import printable
from server.git.objects import Reader
from server.git.tree_object import LINK, Node, files
from server.git.walker.names import is_safe_path
from server.kernel.errors import TreeTooLarge
from server.kernel.ports.trees import ArchiveFormat, Kind

_AHEAD = 64
"""So many files are asked for at once."""
_PIECE = 256 * 1024
_STEPS = 1000
_LEVEL = 1
"""Of ISA-L's compression, which at this level is three times as fast as zlib's, and smaller."""
_LINK_BYTES = 4096
_FILES = 200_000
"""A zip's directory is kept until its end."""


class _Packer(Protocol):
    """Turns files into an archive; each call returns what is ready of it."""

    def takes(self, path: bytes) -> bool:
        """Whether the path can be in such an archive."""
        ...

    def begin(self, path: bytes, mode: int, size: int, link: bytes) -> bytes:
        """A file of so many bytes, or a link."""
        ...

    def add(self, data: bytes) -> bytes:
        """More of the file. Computes."""
        ...

    def end(self) -> bytes:
        """The file is complete."""
        ...

    def finish(self) -> bytes:
        """The archive is complete."""
        ...


async def pack(reader: Reader, tree: Node, archive: ArchiveFormat, at: datetime) -> AsyncGenerator[bytes, None]:
    """All files below `tree`, dated `at`. Names that a checkout would refuse are left out, and so are submodules.
    Errors: GitFailed, TreeTooLarge."""
    packer: _Packer = _Tar(at) if archive is ArchiveFormat.TAR_GZ else _Zip(at)
    packing: asyncio.Task[bytes] | None = None
    try:
        # While a thread packs one piece, git reads the next.
        async with aclosing(_pieces(reader, tree, packer)) as pieces:
            async for piece in pieces:
                ready = await packing if packing else b""
                packing = asyncio.create_task(asyncio.to_thread(_packed, piece))
                if ready:
                    yield ready
        last = await packing if packing else b""
        yield last + await asyncio.to_thread(packer.finish)
    finally:
        if packing:
            packing.cancel()


def _packed(steps: list[Callable[[], bytes]]) -> bytes:
    return b"".join([step() for step in steps])


async def _pieces(reader: Reader, tree: Node, packer: _Packer) -> AsyncGenerator[list[Callable[[], bytes]], None]:
    """What to do with the packer, in steps that take some milliseconds together."""
    steps: list[Callable[[], bytes]] = []
    held = 0
    async with aclosing(_batches(reader, tree, packer)) as batches:
        async for batch in batches:
            todo = iter(batch)
            async with aclosing(reader.contents([node.id for _, node in batch])) as contents:
                async for info, chunks in contents:
                    path, node = next(todo)
                    if node.mode == LINK:
                        target = b"".join([chunk async for chunk in chunks])
                        steps += [partial(packer.begin, path, stat.S_IFLNK | 0o777, 0, target[:_LINK_BYTES]), packer.end]
                        continue
                    steps.append(partial(packer.begin, path, 0o755 if node.kind is Kind.EXECUTABLE else 0o644, info.size, b""))
                    async for chunk in chunks:
                        steps.append(partial(packer.add, chunk))
                        held += len(chunk)
                        if held >= _PIECE:
                            yield steps
                            steps, held = [], 0
                    steps.append(packer.end)
            if len(steps) >= _STEPS:
                yield steps
                steps, held = [], 0
    yield steps


async def _batches(reader: Reader, tree: Node, packer: _Packer) -> AsyncGenerator[list[tuple[bytes, Node]], None]:
    batch, packed = [], 0
    async with aclosing(files(reader, tree, b"")) as found:
        async for path, node in found:
            if node.kind is not Kind.SUBMODULE and is_safe_path(path) and packer.takes(path):
                batch.append((path, node))
                packed += 1
            if packed > _FILES:
                raise TreeTooLarge(_FILES)
            if len(batch) >= _AHEAD:
                yield batch
                batch = []
    if batch:
        yield batch


class _Tar:
    def __init__(self, at: datetime) -> None:
        self._at = int(at.timestamp())
        self._gzip = isal_zlib.compressobj(_LEVEL, wbits=16 + zlib.MAX_WBITS)
        self._size = 0

    def takes(self, path: bytes) -> bool:
        return bool(path)

    def begin(self, path: bytes, mode: int, size: int, link: bytes) -> bytes:
        self._size = size
        info = tarfile.TarInfo(path.decode("utf-8", "surrogateescape"))
        info.size, info.mode, info.mtime = size, stat.S_IMODE(mode), self._at
        if stat.S_ISLNK(mode):
            info.type, info.linkname = tarfile.SYMTYPE, link.decode("utf-8", "surrogateescape")
        return self.add(info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))

    def add(self, data: bytes) -> bytes:
        return self._gzip.compress(data)

    def end(self) -> bytes:
        return self.add(bytes(-self._size % tarfile.BLOCKSIZE))

    def finish(self) -> bytes:
        return self.add(bytes(2 * tarfile.BLOCKSIZE)) + self._gzip.flush()


class _Sink:
    """What a ZipFile writes into; it knows no place in it, as a pipe does."""

    def __init__(self) -> None:
        self._held = bytearray()

    def write(self, data: bytes) -> int:
        self._held += data
        return len(data)

    def flush(self) -> None:
        return None

    def taken(self) -> bytes:
        data = bytes(self._held)
        self._held.clear()
        return data


class _Zip:
    def __init__(self, at: datetime) -> None:
        self._date = max(at.astimezone(UTC), datetime(1980, 1, 1, tzinfo=UTC)).timetuple()[:6]
        self._sink = _Sink()
        self._archive = zipfile.ZipFile(cast("IO[bytes]", self._sink), "w", zipfile.ZIP_DEFLATED)
        self._file: Any = None

    def takes(self, path: bytes) -> bool:
        """Programs for Windows take a backslash for a slash, and so find ways out that `is_safe_path` does not see."""
        shown = printable(path)
        return "\\" not in shown and is_safe_path(shown.encode())

    def begin(self, path: bytes, mode: int, size: int, link: bytes) -> bytes:
        info = zipfile.ZipInfo(printable(path), self._date)
        info.compress_type, info.file_size = zipfile.ZIP_DEFLATED, size
        info.create_system = 3  # Unix: `external_attr` holds a mode
        info.external_attr = (mode if stat.S_ISLNK(mode) else stat.S_IFREG | mode) << 16
        self._file = self._archive.open(info, "w", force_zip64=size >= zipfile.ZIP64_LIMIT)
        # What `open` would take from zlib. It has no way to be told of another; its other half, the directory, is what we want of it.
        self._file._compressor = isal_zlib.compressobj(_LEVEL, wbits=-zlib.MAX_WBITS)
        return self.add(link)

    def add(self, data: bytes) -> bytes:
        self._file.write(data)
        return self._sink.taken()

    def end(self) -> bytes:
        self._file.close()
        return self._sink.taken()

    def finish(self) -> bytes:
        self._archive.close()
        return self._sink.taken()
