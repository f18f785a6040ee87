"""A directory tree as a stream of bytes: files, directories and links, and nothing else.

Who reads it need not trust who wrote it. Names are single ones, each made in the directory that was made before it, so nothing leads
anywhere else; what is there already is an error; sizes and numbers are limited.

D name mode                     a directory, in which what follows is, until its U
F name mode time size, pieces   a file: pieces are (length, offset, bytes), to length 0; what no piece covers is empty
L name target                   a symbolic link
U                               back to the parent
E                               the end
"""

from __future__ import annotations

import argparse
import errno
import os
import stat
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_PIECE_BYTES = 256 * 1024
_LONGEST_NAME = 255
_LONGEST_TARGET = 4095
_LATEST = 2**62
_BLOCK_BYTES = 4096
_IMPOSSIBLE = frozenset({errno.EFBIG, errno.EINVAL, errno.ENAMETOOLONG, errno.EOVERFLOW, errno.EILSEQ, errno.ENOTDIR, errno.ELOOP})
"""Errors that come of what is in a tree, and would come again."""
_NAME = struct.Struct(">H")
_MODE = struct.Struct(">H")
_FILE = struct.Struct(">HqQ")
_PIECE = struct.Struct(">IQ")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class BadTree(Exception):
    """The stream is no tree, or a larger one than may be."""


class BrokenOff(BadTree):
    """The stream has ended before the tree did."""


@dataclass
class Limits:
    """How much of a tree is taken: bytes of the disk, in whole blocks, one of which each entry takes for itself."""

    bytes: int
    entries: int


# -- writing


def pack(root: Path, sink: BinaryIO, *, without: frozenset[bytes] = frozenset()) -> None:
    """Write what is below `root`, where nobody else writes meanwhile; `without` are names directly there that are left out. Needs two
    descriptors for a tree of any depth. What forbids its owner to read it is opened first. Blocks. Errors: OSError."""
    here = os.open(root, _DIRECTORY)
    try:
        levels = [_pack_entries(here, sink, without)]
        while levels:
            if levels[-1]:
                name, mode = levels[-1].pop()
                sink.write(b"D" + _named(name) + _MODE.pack(mode))
                here = _gone_to(here, name)
                levels.append(_pack_entries(here, sink))
                continue
            levels.pop()
            if levels:
                sink.write(b"U")
                here = _gone_to(here, b"..")
        sink.write(b"E")
        sink.flush()
    finally:
        os.close(here)


def _pack_entries(directory: int, sink: BinaryIO, without: frozenset[bytes] = frozenset()) -> list[tuple[bytes, int]]:
    """Write all that is no directory; returns the directories."""
    directories = []
    for name in [os.fsencode(name) for name in os.listdir(directory)]:
        if name in without:
            continue
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
        mode = found.st_mode & 0o777
        if stat.S_ISDIR(found.st_mode):
            if mode & stat.S_IRWXU != stat.S_IRWXU:
                os.chmod(name, stat.S_IRWXU, dir_fd=directory)
            directories.append((name, mode))
        elif stat.S_ISLNK(found.st_mode):
            sink.write(b"L" + _named(name) + _named(os.readlink(name, dir_fd=directory)))
        elif stat.S_ISREG(found.st_mode):
            _pack_file(directory, name, found, sink)
    return directories


def _pack_file(directory: int, name: bytes, found: os.stat_result, sink: BinaryIO) -> None:
    if not found.st_mode & stat.S_IRUSR:
        os.chmod(name, stat.S_IRUSR | stat.S_IWUSR, dir_fd=directory)
    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    try:
        time = min(max(found.st_mtime_ns, 0), _LATEST)
        sink.write(b"F" + _named(name) + _FILE.pack(found.st_mode & 0o777, time, found.st_size))
        at = 0
        while (at := _next_data(file, at, found.st_size)) < found.st_size:
            data = os.pread(file, min(_PIECE_BYTES, found.st_size - at), at)
            if not data:
                break
            sink.write(_PIECE.pack(len(data), at))
            sink.write(data)
            at += len(data)
        sink.write(_PIECE.pack(0, 0))
    finally:
        os.close(file)


def _next_data(file: int, at: int, size: int) -> int:
    """Where a file goes on that has holes."""
    if at >= size:
        return size
    try:
        return os.lseek(file, at, os.SEEK_DATA)
    except OSError:
        return size


def _named(name: bytes) -> bytes:
    return _NAME.pack(len(name)) + name


def _gone_to(here: int, name: bytes) -> int:
    there = os.open(name, _DIRECTORY, dir_fd=here)
    os.close(here)
    return there


# -- reading


def unpack(source: BinaryIO, root: Path, limits: Limits, owner: tuple[int, int] | None = None) -> None:
    """Make the tree in `root`, an empty directory of which nobody else knows. All of it, `root` too, belongs to `owner` then, or else to
    this process's user, who may read and change all of it. Blocks. Errors: BadTree, OSError."""
    left = Limits(limits.bytes, limits.entries)
    here = os.open(root, _DIRECTORY)
    depth = 0
    try:
        while (what := _exactly(source, 1)) != b"E":
            if what == b"U":
                if depth == 0:
                    raise BadTree("it leads out of its own root")
                here, depth = _gone_to(here, b".."), depth - 1
                continue
            left.entries -= 1
            left.bytes -= _BLOCK_BYTES
            if left.entries < 0 or left.bytes < 0:
                raise BadTree(f"it has more than {limits.entries:,} entries, or is larger than it may be")
            name = _unpack_entry(what, source, here, left)
            if owner:
                os.chown(name, *owner, dir_fd=here, follow_symlinks=False)
            if what == b"D":
                here, depth = _gone_to(here, name), depth + 1
        if depth:
            raise BadTree("it ends within a directory")
        if owner:
            os.fchown(here, *owner)
    except FileExistsError as error:
        raise BadTree(str(error)) from error
    except OSError as error:
        if error.errno in _IMPOSSIBLE:
            raise BadTree(str(error)) from error
        raise
    finally:
        os.close(here)


def _unpack_entry(what: bytes, source: BinaryIO, directory: int, left: Limits) -> bytes:
    """Make it; its name."""
    name = _read_name(source)
    if what == b"D":
        (mode,) = _MODE.unpack(_exactly(source, _MODE.size))
        os.mkdir(name, stat.S_IRWXU, dir_fd=directory)
        os.chmod(name, (mode & 0o777) | stat.S_IRWXU, dir_fd=directory)
    elif what == b"L":
        os.symlink(_read_target(source), name, dir_fd=directory)
    elif what == b"F":
        _unpack_file(source, directory, name, left)
    else:
        raise BadTree("it has an entry of no known kind")
    return name


def _unpack_file(source: BinaryIO, directory: int, name: bytes, left: Limits) -> None:
    mode, time, size = _FILE.unpack(_exactly(source, _FILE.size))
    file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
    try:
        if not (0 <= time <= _LATEST and size <= _LATEST):
            raise BadTree("it has a file with an impossible size or time")
        end = 0
        while True:
            length, at = _PIECE.unpack(_exactly(source, _PIECE.size))
            if not length:
                break
            left.bytes -= (-(-(at + length) // _BLOCK_BYTES) - at // _BLOCK_BYTES) * _BLOCK_BYTES
            if length > _PIECE_BYTES or at < end or at + length > size or left.bytes < 0:
                raise BadTree("it has a file that is larger than it says, or the tree is larger than it may be")
            _write(file, _exactly(source, length), at)
            end = at + length
        os.ftruncate(file, size)
        os.fchmod(file, (mode & 0o777) | stat.S_IRUSR | stat.S_IWUSR)
        os.utime(file, ns=(time, time))
    finally:
        os.close(file)


def _write(file: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, at)
        view, at = view[written:], at + written


def _read_name(source: BinaryIO) -> bytes:
    (length,) = _NAME.unpack(_exactly(source, _NAME.size))
    name = _exactly(source, length) if 0 < length <= _LONGEST_NAME else b""
    if not name or name in {b".", b".."} or b"/" in name or b"\0" in name:
        raise BadTree("it has an entry whose name is none")
    return name


def _read_target(source: BinaryIO) -> bytes:
    (length,) = _NAME.unpack(_exactly(source, _NAME.size))
    target = _exactly(source, length) if 0 < length <= _LONGEST_TARGET else b""
    if not target or b"\0" in target:
        raise BadTree("it has a link that leads nowhere")
    return target


def _exactly(source: BinaryIO, length: int) -> bytes:
    data = source.read(length)
    if len(data) != length:
        raise BrokenOff("it breaks off")
    return data


def main() -> None:
    """For the worker's user in its container: `pack ROOT` to standard output, `unpack ROOT` from standard input."""
    parser = argparse.ArgumentParser(prog="python -m carrier.tree")
    parser.add_argument("what", choices=["pack", "unpack"])
    parser.add_argument("root", type=Path)
    parser.add_argument("without", nargs="*")
    options = parser.parse_args()
    if options.what == "pack":
        pack(options.root, sys.stdout.buffer, without=frozenset(map(os.fsencode, options.without)))
    else:
        # From its own server.
        unpack(sys.stdin.buffer, options.root, Limits(_LATEST, _LATEST))


if __name__ == "__main__":
    main()
