"""Object store on a directory of this machine: the embedded default."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from pathlib import Path
from typing import BinaryIO

from server.config import Settings
from server.kernel.errors import ObjectNotFound, ObjectStoreUnavailable
from server.kernel.ports.object_store import ObjectStore, StoredObject
from server.storage.keys import checked_key, checked_prefix
from server.storage.reading import PIECE_BYTES, Source, verified
from server.storage.threads import Threads

_INCOMING = ".incoming"
"""Where objects are written before they get their name; no key begins with a dot."""

_THREADS = 4


@asynccontextmanager
async def open_filesystem(settings: Settings) -> AsyncIterator[ObjectStore]:
    """Objects below `<data_dir>/objects`, which this server alone writes to. What a crashed server left half-written is removed.

    Errors: ObjectStoreUnavailable when the directory cannot be used.
    """
    threads = Threads("objects", size=_THREADS)
    try:
        yield await threads.run(lambda _: FilesystemStore(settings.data_dir / "objects", threads))
    finally:
        await threads.close()


class FilesystemStore:
    """One file per object, under the object's key. Written aside, made durable, then renamed: a name never stands for half an object."""

    def __init__(self, root: Path, threads: Threads) -> None:
        self._root = root
        self._threads = threads
        with _failures():
            shutil.rmtree(root / _INCOMING, ignore_errors=True)
            _make_directories(root / _INCOMING)

    async def put(self, key: str, source: Path) -> StoredObject:
        """See the port."""
        path = self._root / checked_key(key)
        return await self._threads.run(lambda stop: self._put(key, path, source, stop))

    def get(self, key: str, *, sha256: str) -> AsyncIterator[bytes]:
        """See the port."""
        return self._threads.stream(verified(key, sha256, _pieces(key, self._root / checked_key(key))))

    async def delete(self, key: str) -> None:
        """See the port."""
        path = self._root / checked_key(key)
        await self._threads.run(lambda _: _delete(path))

    async def list(self, prefix: str) -> AsyncIterator[str]:
        """See the port."""
        folder, _, _ = checked_prefix(prefix).rpartition("/")
        async with aclosing(self._threads.stream(_keys(self._root / folder, f"{folder}/" if folder else ""))) as pages:
            async for page in pages:
                for key in page:
                    if key.startswith(prefix):
                        yield key

    def _put(self, key: str, path: Path, source: Path, stop: threading.Event) -> StoredObject:
        with source.open("rb") as file, _failures():
            _make_directories(path.parent)
            handle, name = tempfile.mkstemp(dir=self._root / _INCOMING)
            temporary = Path(name)
            try:
                with os.fdopen(handle, "wb") as target:
                    stored = _copy(key, Source(file, stop), target)
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            _sync_directory(path.parent)
            return stored


def _copy(key: str, source: Source, target: BinaryIO) -> StoredObject:
    while piece := source.read():
        target.write(piece)
    target.flush()
    os.fsync(target.fileno())
    return source.stored_as(key)


def _pieces(key: str, path: Path) -> Iterator[bytes]:
    with _failures():
        try:
            file = path.open("rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise ObjectNotFound(key) from error
        with file:
            while piece := file.read(PIECE_BYTES):
                yield piece


def _delete(path: Path) -> None:
    with _failures():
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return
        _sync_directory(path.parent)


def _keys(folder: Path, prefix: str) -> Generator[list[str], None, None]:
    """Keys below a folder, in the order of whole keys and a folder's files at a time: `a-b` comes before `a/b`."""
    with _failures():
        try:
            with os.scandir(folder) as found:
                entries = sorted(entry.name + "/" * entry.is_dir() for entry in found if not entry.name.startswith("."))
        except (FileNotFoundError, NotADirectoryError):
            return
    files: list[str] = []
    for name in entries:
        if name.endswith("/"):
            yield files
            files = []
            yield from _keys(folder / name, prefix + name)
        else:
            files.append(prefix + name)
    yield files


def _make_directories(path: Path) -> None:
    """Like `mkdir -p`, and durable: a directory that was made survives a power cut with its name."""
    if path.is_dir():
        return
    _make_directories(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ObjectStoreUnavailable(f"the object directory cannot be used: {error}") from error
