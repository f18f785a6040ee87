"""Archives of a tree, packed here: `git archive` would do what the tree's own `.gitattributes` says (export-subst, export-ignore)."""

from __future__ import annotations

import stat
import tarfile
import zipfile
import zlib
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Protocol, cast

from isal import isal_zlib

from server.git.blobs import Blobs, blobs
from server.git.command import Git
from server.git.manifest import printable
from server.git.objects import Reader
from server.git.tree_object import LINK, Node, files
from server.git.walker.names import is_safe_path
from server.kernel.errors import TreeTooLarge
from server.kernel.ports.trees import ArchiveFormat, Kind

_AHEAD = 64
"""So many files are asked for at once."""
_PIECE = 256 * 1024
_WORTH = 64 * 1024
"""So many bytes of a tar are compressed at once."""
_LEVEL = 1
"""Of ISA-L's compression, which at this level is three times as fast as zlib's, and smaller."""
_LINK_BYTES = 4096
_FILES = 200_000
"""A zip's directory is kept until its end."""


_Batch = list[tuple[bytes, Node]]


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


async def pack(git: Git, mirror: Path, reader: Reader, tree: Node, *, archive: ArchiveFormat, at: datetime) -> AsyncGenerator[bytes, None]:
    """All files below `tree`, dated `at`. Names that a checkout would refuse are left out, and so are submodules.
    Errors: GitFailed, TreeTooLarge."""
    packer: _Packer = _Tar(at) if archive is ArchiveFormat.TAR_GZ else _Zip(at)
    async with blobs(git, mirror) as contents, aclosing(_batches(reader, tree, packer)) as batches:
        batch = await _asked(contents, batches)
        while batch:
            following = await _asked(contents, batches)
            pieces = _pieces(contents, batch, packer)
            while (piece := await contents.thread(lambda: next(pieces, None))) is not None:  # noqa: B023 - it is done before the next
                if piece:
                    yield piece
            batch = following
        yield await contents.thread(packer.finish)


async def _asked(contents: Blobs, batches: AsyncGenerator[_Batch, None]) -> _Batch:
    """Git is at it while the one before is packed."""
    batch: _Batch = await anext(batches, [])
    contents.ask([node.id for _, node in batch])
    return batch


def _pieces(contents: Blobs, batch: _Batch, packer: _Packer) -> Iterator[bytes]:
    """The archive, as far as these files; each piece takes some milliseconds. Blocks."""
    ready: list[bytes] = []
    taken = 0
    for path, node in batch:
        size = contents.size(node.id)
        if node.mode == LINK:
            target = b""
            for chunk in contents.content(size):
                target = (target + chunk)[:_LINK_BYTES]
                if size > _PIECE:  # so many bytes are no link's
                    yield b""
            ready += [packer.begin(path, stat.S_IFLNK | 0o777, 0, target), packer.end()]
            continue
        ready.append(packer.begin(path, 0o755 if node.kind is Kind.EXECUTABLE else 0o644, size, b""))
        for chunk in contents.content(size):
            ready.append(packer.add(chunk))
            taken += len(chunk)
            if taken >= _PIECE:
                yield b"".join(ready)
                ready, taken = [], 0
        ready.append(packer.end())
    yield b"".join(ready)


async def _batches(reader: Reader, tree: Node, packer: _Packer) -> AsyncGenerator[_Batch, None]:
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
        self._held: list[bytes] = []
        self._held_bytes = 0

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
        """Compresses when it is worth it: each time this thread may have to wait until Python lets it go on."""
        self._held.append(data)
        self._held_bytes += len(data)
        return self._compressed() if self._held_bytes >= _WORTH else b""

    def end(self) -> bytes:
        return self.add(bytes(-self._size % tarfile.BLOCKSIZE))

    def finish(self) -> bytes:
        self._held.append(bytes(2 * tarfile.BLOCKSIZE))
        return self._compressed() + self._gzip.flush()

    def _compressed(self) -> bytes:
        data = b"".join(self._held)
        self._held, self._held_bytes = [], 0
        return self._gzip.compress(data)


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
        self._left_out = 0

    def takes(self, path: bytes) -> bool:
        """Programs for Windows take a backslash for a slash, and so find ways out that `is_safe_path` does not see."""
        shown = printable(path)
        taken = "\\" not in shown and is_safe_path(shown.encode())
        self._left_out += not taken
        return taken

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
        if self._left_out:
            self._archive.comment = f"{self._left_out} files are left out for their names; a tar.gz holds them".encode()
        self._archive.close()
        return self._sink.taken()
