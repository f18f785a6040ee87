"""Where archives are: a bucket of the old system, or a copy of it in a directory."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from server.kernel.errors import ObjectNotFound, ObjectStoreUnavailable
from server.storage.s3_shared import SharedBucket

NAME = "session.tar.gz"
_PIECE = 1024 * 1024


@dataclass(frozen=True)
class Entry:
    """One archive, `<key>/session.tar.gz`. `version` changes with its bytes; size in bytes."""

    key: str
    version: str
    size: int


class Source(Protocol):
    """Read only. Errors: ObjectNotFound, ObjectStoreUnavailable."""

    async def entries(self) -> Sequence[Entry]:
        """All archives, by key."""
        ...

    async def download(self, key: str, into: BinaryIO, *, max_bytes: int) -> tuple[str, str]:
        """Write one to a file, and a little more than `max_bytes` at most; its SHA-256, and the version that came."""
        ...


class BucketSource:
    """A bucket as the old system's storage worker wrote it."""

    def __init__(self, bucket: SharedBucket) -> None:
        self._bucket = bucket

    async def entries(self) -> Sequence[Entry]:
        """See Source."""
        found = [(seen.key.rpartition("/"), seen) for seen in await self._bucket.list()]
        return [Entry(key, seen.version, seen.size) for (key, _, name), seen in found if name == NAME and key and "/" not in key]

    async def download(self, key: str, into: BinaryIO, *, max_bytes: int) -> tuple[str, str]:
        """See Source."""
        return await self._bucket.download(f"{key}/{NAME}", into, max_bytes=max_bytes)


class DirectorySource:
    """A copy of such a bucket, as `mc mirror` or `aws s3 sync` make it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    async def entries(self) -> Sequence[Entry]:
        """See Source."""
        return await asyncio.to_thread(self._entries)

    async def download(self, key: str, into: BinaryIO, *, max_bytes: int) -> tuple[str, str]:
        """See Source."""
        return await asyncio.to_thread(self._copy, key, into, max_bytes)

    def _entries(self) -> Sequence[Entry]:
        try:
            found = []
            for folder in sorted(self._root.iterdir()):
                archive = folder / NAME
                if archive.is_file():
                    status = archive.stat()
                    found.append(Entry(folder.name, _version(status), status.st_size))
        except OSError as error:
            raise ObjectStoreUnavailable(f"the directory cannot be read: {error}") from error
        return found

    def _copy(self, key: str, into: BinaryIO, max_bytes: int) -> tuple[str, str]:
        digest = hashlib.sha256()
        try:
            with (self._root / key / NAME).open("rb") as file:
                version = _version(os.fstat(file.fileno()))
                while (piece := file.read(_PIECE)) and file.tell() <= max_bytes + _PIECE:
                    into.write(piece)
                    digest.update(piece)
        except FileNotFoundError as error:
            raise ObjectNotFound(key) from error
        except OSError as error:
            raise ObjectStoreUnavailable(f"the archive cannot be read: {os.strerror(error.errno or 0)}") from error
        return digest.hexdigest(), version


def _version(status: os.stat_result) -> str:
    return f"{status.st_size}-{status.st_mtime_ns}"
