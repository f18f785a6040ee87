"""The port `LiveFiles`: a hostile tree, worked on beside its owner, who may swap any name for a link between two system calls."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar, assert_never

from server.git.beneath import move, open_beneath
from server.git.loose import loose
from server.git.manifest import printable
from server.git.paths import FILE_BYTES, KEEP, page_key, page_token, parts_of, streamable_parts_of, without_content, writable_parts_of
from server.git.staging import content_of
from server.git.walker.names import is_git_directory
from server.kernel.errors import (
    FileChanged,
    FileExists,
    FileTooLarge,
    FileUnusable,
    NotADirectory,
    NotAFile,
    PathInvalid,
    PathNotFound,
    TooManyStreams,
)
from server.kernel.ports.trees import Change, Content, Delete, Edit, Entry, Kind, Listing, MakeDirectory, Move, SetMode, Write, WriteStaged

_STREAMS = 32
_CHUNK = 256 * 1024
_ENTRIES = 200_000
_BLOB_ID_LENGTH = 40
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
_LINK_BYTES = 4096

Parts = Sequence[bytes]
T = TypeVar("T")


class OpenedFiles:
    """See server/kernel/ports/live_files.py. All that touches the disk runs in threads."""

    def __init__(self) -> None:
        self._streams = 0

    async def listing(self, workspace: Path, path: str, *, after: str, limit: int) -> Listing:
        """A page of entries."""
        parts, behind = _readable(path), page_key(after)
        return await asyncio.to_thread(_list, workspace, path, parts, behind, limit)

    async def read(self, workspace: Path, path: str, *, offset: int, length: int | None) -> Content:
        """A file's bytes."""
        parts = _readable(path)
        if self._streams >= _STREAMS:
            raise TooManyStreams(_STREAMS)
        entry, opened = await asyncio.to_thread(_open, workspace, path, parts)
        if isinstance(opened, bytes):
            return Content(entry, _once(opened[offset:][: entry.size if length is None else length]))
        left = max(0, entry.size - offset)
        return Content(entry, self._chunks(opened, offset, left if length is None else min(left, length)))

    async def check(self, workspace: Path, path: str, etag: str | None) -> None:
        """Whether a write would be refused."""
        await asyncio.to_thread(_check, workspace, path, etag)

    async def edit(self, workspace: Path, edit: Edit) -> Change | None:
        """One edit."""
        return await asyncio.to_thread(_edit, workspace, edit)

    async def _chunks(self, opened: _Opened, offset: int, left: int) -> AsyncGenerator[bytes, None]:
        self._streams += 1
        try:
            while left > 0 and (chunk := await asyncio.to_thread(os.pread, opened.descriptor, min(left, _CHUNK), offset)):
                yield chunk
                offset, left = offset + len(chunk), left - len(chunk)
        finally:
            self._streams -= 1


@dataclass(frozen=True)
class _Opened:
    """An open file, closed with the last who knows it: a generator that nobody begins to read is not told that it ends."""

    descriptor: int

    def __del__(self) -> None:
        os.close(self.descriptor)


async def _once(content: bytes) -> AsyncGenerator[bytes, None]:
    yield content


# -- in threads -------------------------------------------------------------------------------------------------------------


@contextmanager
def _failing(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _failure(path, error) from error


def _failure(path: str, error: OSError) -> Exception:
    match error.errno:
        case errno.ENOENT:
            return PathNotFound(path)
        case errno.ENOTDIR | errno.ELOOP | errno.EXDEV:
            return NotADirectory(path)
        case errno.ENAMETOOLONG | errno.EINVAL | errno.EILSEQ:
            return PathInvalid(path, "is no path here")
        case errno.EISDIR | errno.ENOTEMPTY:
            return NotAFile(path, Kind.DIRECTORY)
        case errno.EACCES | errno.EPERM if os.geteuid():
            return FileUnusable(path, "the server is not root, and may not do this to its worker's files; try when the turn has ended")
        case _:
            return FileUnusable(path, error.strerror or "it cannot be used")


@contextmanager
def _opened(workspace: Path, parts: Parts, flags: int) -> Iterator[int]:
    """What is at a path. Errors: OSError."""
    root = os.open(workspace, _DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        descriptor = open_beneath(root, parts, flags)
    finally:
        os.close(root)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _list(workspace: Path, path: str, parts: Parts, behind: bytes, limit: int) -> Listing:
    prefix = b"".join(part + b"/" for part in parts)
    with _failing(path), _opened(workspace, parts, _DIRECTORY) as directory:
        with os.scandir(directory) as listing:
            names = [os.fsencode(entry.name) + b"/" * entry.is_dir(follow_symlinks=False) for entry in islice(listing, _ENTRIES + 1)]
        if len(names) > _ENTRIES:
            raise FileTooLarge(path, limit=_ENTRIES)
        keys = sorted(prefix + name for name in names if not is_git_directory(name.removesuffix(b"/")))
        page = [key for key in keys if key > behind][: limit + 1]
        entries = [_seen(directory, key.removesuffix(b"/"), key[len(prefix) :].removesuffix(b"/")) for key in page[:limit]]
    shown = tuple(entry for entry in entries if entry is not None)
    return Listing(shown, page_token(page[limit - 1]) if len(page) > limit else "")


def _seen(directory: int, path: bytes, name: bytes) -> Entry | None:
    """None for what is gone meanwhile, and for what is neither file nor link nor directory."""
    try:
        return _entry(printable(path), os.stat(name, dir_fd=directory, follow_symlinks=False))
    except (FileNotFoundError, NotAFile):
        return None


def _entry(path: str, status: os.stat_result) -> Entry:
    """Errors: NotAFile for sockets, pipes and devices."""
    if stat.S_ISDIR(status.st_mode):
        return Entry(path, Kind.DIRECTORY, 0, "")
    if stat.S_ISLNK(status.st_mode):
        return Entry(path, Kind.LINK, status.st_size, _etag(status))
    if not stat.S_ISREG(status.st_mode):
        raise NotAFile(path, "SPECIAL")
    kind = Kind.EXECUTABLE if status.st_mode & stat.S_IXUSR else Kind.FILE
    return Entry(path, kind, status.st_size, _etag(status))


def _etag(status: os.stat_result) -> str:
    """Its owner can set all of a file's times but this one."""
    return f"{status.st_ino:x}-{status.st_size:x}-{status.st_ctime_ns:x}"


def _open(workspace: Path, path: str, parts: Parts) -> tuple[Entry, _Opened | bytes]:
    """A file, open; or a link's target."""
    if not parts:
        raise NotAFile(path, Kind.DIRECTORY)
    with _failing(path), _opened(workspace, parts[:-1], _DIRECTORY) as directory:
        entry = _entry(path, os.stat(parts[-1], dir_fd=directory, follow_symlinks=False))
        if entry.kind is Kind.DIRECTORY:
            raise NotAFile(path, Kind.DIRECTORY)
        if entry.kind is Kind.LINK:
            return entry, os.readlink(parts[-1], dir_fd=directory)[:_LINK_BYTES]
        # It may be something else by now, at which to open would wait.
        opened = _Opened(os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory))
        return _entry(path, os.fstat(opened.descriptor)), opened


def _edit(workspace: Path, edit: Edit) -> Change | None:
    if isinstance(edit, Write | WriteStaged):
        return _write(workspace, edit)
    if isinstance(edit, SetMode):
        return _set_mode(workspace, edit)
    if isinstance(edit, Move):
        return _move(workspace, edit)
    if isinstance(edit, Delete):
        return _delete(workspace, edit)
    if isinstance(edit, MakeDirectory):
        return _make_directory(workspace, edit)
    assert_never(edit)


def _check(workspace: Path, path: str, etag: str | None) -> None:
    *above, name = streamable_parts_of(path)
    try:
        with _failing(path), _opened(workspace, above, _DIRECTORY) as directory:
            _writable(directory, name, path, etag)
    except PathNotFound:  # of a directory that would be made
        if etag:
            raise FileChanged(path, "", expected=etag) from None


def _writable(directory: int, name: bytes, path: str, etag: str | None) -> os.stat_result | None:
    there = _expected(directory, name, path, etag)
    if there is not None and not stat.S_ISREG(there.st_mode):
        raise NotAFile(path, _entry(path, there).kind)
    return there


def _write(workspace: Path, edit: Write | WriteStaged) -> Change | None:
    if isinstance(edit, WriteStaged):
        (*above, name), pieces = streamable_parts_of(edit.path), content_of(edit.staged)
    else:
        (*above, name), pieces = writable_parts_of(edit.path), iter([edit.content])
        if len(edit.content) > FILE_BYTES:
            raise FileTooLarge(edit.path, limit=FILE_BYTES)
    with _made(workspace, edit.path, above) as (directory, _):
        there = _writable(directory, name, edit.path, edit.expected_etag)
        mode = _mode(there, executable=edit.executable)
        temporary = b".treadle-" + secrets.token_hex(8).encode()
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.writelines(pieces)
                file.flush()
                _give(file.fileno(), directory)
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
                os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
                entry = _entry(edit.path, os.fstat(file.fileno()))
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=directory)
            raise
    return Change(edit.path, "MODIFIED" if there else "ADDED", entry=entry)


def _mode(there: os.stat_result | None, *, executable: bool | None) -> int:
    mode = stat.S_IMODE(there.st_mode) & 0o777 if there else 0o644
    if executable is None:
        return mode
    return mode | 0o111 if executable else mode & ~0o111


def _set_mode(workspace: Path, edit: SetMode) -> Change | None:
    *above, name = writable_parts_of(edit.path)
    try:
        with _failing(edit.path), _opened(workspace, above, _DIRECTORY) as directory:
            there = _writable(directory, name, edit.path, edit.expected_etag)
            if there is None:
                raise without_content(edit.path)
            if bool(there.st_mode & stat.S_IXUSR) == edit.executable:
                return None
            # It may be something else by now: what is opened is judged anew, and changed by its descriptor.
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
            with os.fdopen(descriptor, "rb"):
                there = os.fstat(descriptor)
                if not stat.S_ISREG(there.st_mode):
                    raise NotAFile(edit.path, _entry(edit.path, there).kind)
                os.fchmod(descriptor, _mode(there, executable=edit.executable))
                entry = _entry(edit.path, os.fstat(descriptor))
    except PathNotFound:
        raise without_content(edit.path) from None
    return Change(edit.path, "MODIFIED", entry=entry)


def _make_directory(workspace: Path, edit: MakeDirectory) -> Change | None:
    """Held by a file, as in a commit: the turn's own commit would be without it."""
    parts = writable_parts_of(edit.path)
    writable_parts_of(printable(b"/".join([*parts, KEEP])))
    with _made(workspace, edit.path, parts) as (directory, made):
        if not made:
            return None
        descriptor = os.open(KEEP, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=directory)
        try:
            _give(descriptor, directory)
        finally:
            os.close(descriptor)
    return Change(f"{edit.path}/{KEEP.decode()}", "ADDED", entry=Entry(edit.path, Kind.DIRECTORY, 0, ""))


def _move(workspace: Path, edit: Move) -> Change | None:
    (*above, name), (*beneath, to) = writable_parts_of(edit.path), writable_parts_of(edit.to)
    with _failing(edit.path), _opened(workspace, above, _DIRECTORY) as source:
        if _expected(source, name, edit.path, edit.expected_etag) is None:
            raise PathNotFound(edit.path)
        with _made(workspace, edit.to, beneath) as (target, _):
            try:
                move(source, name, target, to)
            except FileExistsError:
                raise FileExists(edit.to) from None
            except OSError as error:
                if error.errno == errno.EINVAL:
                    raise PathInvalid(edit.to, "lies within what is to be moved") from None
                raise
            entry = _entry(edit.to, os.stat(to, dir_fd=target, follow_symlinks=False))
    return Change(edit.to, "RENAMED", old_path=edit.path, entry=entry)


def _delete(workspace: Path, edit: Delete) -> Change | None:
    *above, name = writable_parts_of(edit.path)
    with _failing(edit.path), _opened(workspace, above, _DIRECTORY) as directory:
        there = _expected(directory, name, edit.path, edit.expected_etag)
        if there is None:
            raise PathNotFound(edit.path)
        if not stat.S_ISDIR(there.st_mode):
            os.unlink(name, dir_fd=directory)
        elif edit.recursive:
            shutil.rmtree(name, dir_fd=directory)
        else:
            raise NotAFile(edit.path, Kind.DIRECTORY)
    return Change(edit.path, "DELETED")


@contextmanager
def _made(workspace: Path, path: str, parts: Parts) -> Iterator[tuple[int, bool]]:
    """A directory, made with those that lead there, and whether it was. Errors: NotADirectory, ..."""
    made = False
    with _failing(path):
        root = os.open(workspace, _DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        directory = root
        try:
            for part in parts:
                made = _make(directory, part)
                below = open_beneath(directory, [part], _DIRECTORY)
                if made:
                    _give(below, root)
                if directory != root:
                    os.close(directory)
                directory = below
            yield directory, made
        finally:
            if directory != root:
                os.close(directory)
            os.close(root)


def _make(directory: int, name: bytes) -> bool:
    try:
        os.mkdir(name, 0o755, dir_fd=directory)
    except FileExistsError:
        return False
    return True


def _give(descriptor: int, like: int) -> None:
    """To the owner of the directory `like`: the agent's, whoever we are."""
    owner = os.fstat(like)
    if (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _expected(directory: int, name: bytes, path: str, etag: str | None) -> os.stat_result | None:
    """What is there, if it is what the caller believes. Errors: FileChanged."""
    try:
        there = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        there = None
    now = _etag(there) if there is not None and not stat.S_ISDIR(there.st_mode) else ""
    if etag is None or (etag == now and bool(etag) == (there is not None)):
        return there
    if len(etag) == _BLOB_ID_LENGTH and there is not None and stat.S_ISREG(there.st_mode) and etag == _blob_id(directory, name):
        return there
    if there is not None and stat.S_ISDIR(there.st_mode):
        raise NotAFile(path, Kind.DIRECTORY)
    raise FileChanged(path, now, expected=etag)


def _blob_id(directory: int, name: bytes) -> str:
    """Of a file that a caller knows from a commit; empty for one that is too large to look at."""
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(FILE_BYTES + 1) if stat.S_ISREG(os.fstat(descriptor).st_mode) else b""
    return loose("blob", content).id if len(content) <= FILE_BYTES else ""


def _readable(path: str) -> tuple[bytes, ...]:
    """Errors: PathInvalid, also for Git's own directory: it is the agent's copy, and no part of the tree."""
    parts = parts_of(path)
    if any(is_git_directory(part) for part in parts):
        raise PathInvalid(path, "is, or looks to some file system like, Git's own directory")
    return parts
