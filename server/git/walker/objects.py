"""Reads the object database of a workspace's own `.git`, in which every byte is hostile.

Only what lies in its `objects` directory: loose objects and packs (gitformat-pack(5), version 2 with an index of version 2). No
alternates, replacements, grafts or promised objects; no configuration is read. What an object is called is what it hashes to.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import time
import zlib
from collections.abc import Callable
from contextlib import suppress

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CHUNK = 64 * 1024
_PACKS = 16
_NAMES = 1000
_DELTAS = 100
"""Git makes chains of 50 at most, unless it is told otherwise."""
_HEADER_BYTES = 32
_KINDS = {1: b"commit", 2: b"tree", 3: b"blob"}
_OFFSET_DELTA, _NAMED_DELTA = 6, 7
_FANOUT = 8
_NAMES_AT = _FANOUT + 256 * 4
_TRAILER = 20


class Odd(Exception):
    """Something is not as an honest git leaves it, or larger than it may be."""


class Budget:
    """What reading a repository may cost in all."""

    def __init__(self, *, cpu_seconds: float, total_bytes: int) -> None:
        self._until = time.process_time() + cpu_seconds
        self._bytes = total_bytes

    def tick(self) -> None:
        """Errors: Odd when the time is used up."""
        if time.process_time() > self._until:
            raise Odd("takes too long")

    def spend(self, size: int) -> None:
        """Errors: Odd when it is more than is left."""
        self.tick()
        self._bytes -= size
        if self._bytes < 0:
            raise Odd("too large in all")


class Objects:
    """The objects below the directory that is open as `git`. Errors, of every method: Odd, OSError."""

    def __init__(self, git: int, budget: Budget) -> None:
        self._budget = budget
        self._directory = os.open("objects", _DIRECTORY, dir_fd=git)
        self._packs: list[_Pack] = []
        try:
            self._open_packs()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close all files."""
        for pack in self._packs:
            pack.close()
        os.close(self._directory)

    def read(self, identity: bytes, kind: bytes, *, most: int) -> bytes:
        """The content of an object of at most `most` bytes."""
        found, content = self._find(identity, most, _DELTAS)
        name = hashlib.sha1(b"%s %d\0" % (kind, len(content)), usedforsecurity=False)
        name.update(content)
        if found != kind or name.hexdigest().encode() != identity:
            raise Odd("an object is not what it is named")
        return content

    def _open_packs(self) -> None:
        try:
            directory = os.open("pack", _DIRECTORY, dir_fd=self._directory)
        except FileNotFoundError:
            return
        try:
            for name in _few(directory):
                if name.endswith(".idx") and name.startswith("pack-"):
                    if len(self._packs) == _PACKS:
                        raise Odd("too many packs")
                    self._packs.append(_Pack(directory, name.removesuffix(".idx"), self._budget))
        finally:
            os.close(directory)

    def _find(self, identity: bytes, most: int, deltas: int) -> tuple[bytes, bytes]:
        with suppress(FileNotFoundError):
            return self._loose(identity, most)
        for pack in self._packs:
            offset = pack.offset(bytes.fromhex(identity.decode()))
            if offset is not None:
                return self._packed(pack, offset, most, deltas)
        raise Odd("an object is missing")

    def _loose(self, identity: bytes, most: int) -> tuple[bytes, bytes]:
        directory = os.open(identity[:2], _DIRECTORY, dir_fd=self._directory)
        try:
            file = _open_file(identity[2:], directory)
        finally:
            os.close(directory)
        try:
            inflating = zlib.decompressobj()
            head = inflating.decompress(os.pread(file, _CHUNK, 0), _HEADER_BYTES)
            header, end, begun = head.partition(b"\0")
            kind, _, length = header.partition(b" ")
            if not end or not length.isdigit():
                raise Odd("a malformed object")
            return kind, self._inflate(_Source(file, _CHUNK, inflating), begun, int(length), most)
        except zlib.error as error:
            raise Odd("a malformed object") from error
        finally:
            os.close(file)

    def _packed(self, pack: _Pack, offset: int, most: int, deltas: int) -> tuple[bytes, bytes]:
        """From a delta to what it is made over, and so on; then all of them are applied."""
        waiting: list[bytes] = []
        while True:
            kind, size, at = pack.header(offset)
            if kind in _KINDS:
                found, content = _KINDS[kind], self._inflated(pack, at, size, most)
                break
            if len(waiting) >= deltas:
                raise Odd("too many deltas")
            if kind == _OFFSET_DELTA:
                back, at = pack.distance(at)
                waiting.append(self._inflated(pack, at, size, most))
                offset -= back
            elif kind == _NAMED_DELTA:
                over = pack.read(at, 20).hex().encode()
                waiting.append(self._inflated(pack, at + 20, size, most))
                found, content = self._find(over, most, deltas - len(waiting))
                break
            else:
                raise Odd("a malformed pack")
        for delta in reversed(waiting):
            content = _apply(delta, content, most, self._budget)
        return found, content

    def _inflated(self, pack: _Pack, at: int, size: int, most: int) -> bytes:
        try:
            return self._inflate(_Source(pack.descriptor, at, zlib.decompressobj()), b"", size, most)
        except zlib.error as error:
            raise Odd("a malformed pack") from error

    def _inflate(self, source: _Source, begun: bytes, size: int, most: int) -> bytes:
        """Exactly `size` bytes, of which some are there."""
        if size > most:
            raise Odd("a large object")
        self._budget.spend(size)
        content = bytearray(begun)
        while len(content) <= size and not source.inflating.eof:
            content += source.more(size - len(content) + 1)
            self._budget.tick()
        if len(content) != size:
            raise Odd("a malformed object")
        return bytes(content)


class _Source:
    """Compressed bytes, in a file from `at` on."""

    def __init__(self, file: int, at: int, inflating: zlib._Decompress) -> None:
        self.file = file
        self.at = at
        self.inflating = inflating

    def more(self, most: int) -> bytes:
        """What comes next of the content; it may be nothing yet."""
        chunk = self.inflating.unconsumed_tail
        if not chunk:
            chunk = os.pread(self.file, _CHUNK, self.at)
            self.at += len(chunk)
        if not chunk:
            raise Odd("an object is cut off")
        return self.inflating.decompress(chunk, most)


class _Pack:
    """One pack with its index. Nothing that they say is relied on, but to find the place where something may be."""

    def __init__(self, directory: int, name: str, budget: Budget) -> None:
        self._budget = budget
        self._index = _open_file(f"{name}.idx", directory)
        try:
            self.descriptor = _open_file(f"{name}.pack", directory)
        except BaseException:
            os.close(self._index)
            raise
        self._size = os.fstat(self.descriptor).st_size
        try:
            if os.pread(self._index, _FANOUT, 0) != b"\xfftOc\0\0\0\x02" or self.read(0, 8) != b"PACK\0\0\0\x02":
                raise Odd("a pack of another version")
            self._fanout = struct.unpack(">256I", _exactly(self._index, 1024, _FANOUT))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close both files."""
        os.close(self._index)
        os.close(self.descriptor)

    def offset(self, identity: bytes) -> int | None:
        """Where the object of this id should begin."""
        low, high = (self._fanout[identity[0] - 1] if identity[0] else 0), self._fanout[identity[0]]
        while low < high:
            middle = (low + high) // 2
            name = _exactly(self._index, 20, _NAMES_AT + 20 * middle)
            if name == identity:
                return self._offset_of(middle)
            low, high = (middle + 1, high) if name < identity else (low, middle)
        return None

    def _offset_of(self, number: int) -> int:
        count = self._fanout[255]
        offsets = _NAMES_AT + 24 * count
        offset = int.from_bytes(_exactly(self._index, 4, offsets + 4 * number))
        if offset >> 31:  # a pack of more than 2 GiB
            offset = int.from_bytes(_exactly(self._index, 8, offsets + 4 * count + 8 * (offset & 0x7FFFFFFF)))
        return offset

    def read(self, at: int, length: int) -> bytes:
        """Exactly so many bytes of the pack."""
        return _exactly(self.descriptor, length, at)

    def header(self, at: int) -> tuple[int, int, int]:
        """Of the entry at `at`: its kind, the size of what is packed, and where that begins."""
        if not 0 < at < self._size - _TRAILER:
            raise Odd("a malformed pack")
        read = self._bytes_from(at)
        byte = read()
        kind, size, shift, length = (byte >> 4) & 7, byte & 15, 4, 1
        while byte & 0x80:
            byte = read()
            size |= (byte & 0x7F) << shift
            shift, length = shift + 7, length + 1
        return kind, size, at + length

    def distance(self, at: int) -> tuple[int, int]:
        """How far back the base of a delta begins, and where the delta itself does."""
        read = self._bytes_from(at)
        byte = read()
        back, length = byte & 0x7F, 1
        while byte & 0x80:
            byte = read()
            back = ((back + 1) << 7) | (byte & 0x7F)
            length += 1
        if back == 0:
            raise Odd("a malformed pack")
        return back, at + length

    def _bytes_from(self, at: int) -> Callable[[], int]:
        """For numbers of variable length, of which an honest one has ten bytes at most."""
        return _taking(os.pread(self.descriptor, 10, at))


def _taking(data: bytes) -> Callable[[], int]:
    rest = iter(data)

    def take() -> int:
        byte = next(rest, None)
        if byte is None:
            raise Odd("a malformed number")
        return byte

    return take


def _apply(delta: bytes, base: bytes, most: int, budget: Budget) -> bytes:
    position = 0

    def size() -> int:
        nonlocal position
        value, shift = 0, 0
        take = _taking(delta[position : position + 10])
        while True:
            byte = take()
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value

    if size() != len(base):
        raise Odd("a malformed delta")
    expected = size()
    if expected > most:
        raise Odd("a large object")
    budget.spend(expected)
    made = bytearray()
    while position < len(delta):
        command = delta[position]
        position += 1
        if command & 0x80:
            fields = [0] * 7
            for bit in range(7):
                if command & (1 << bit):
                    if position >= len(delta):
                        raise Odd("a malformed delta")
                    fields[bit] = delta[position]
                    position += 1
            begin = int.from_bytes(bytes(fields[:4]), "little")
            length = int.from_bytes(bytes(fields[4:]), "little") or 0x10000
            piece = base[begin : begin + length]
        else:
            length = command
            piece = delta[position : position + length]
            position += length
        if not length or len(piece) != length or len(made) + length > expected:
            raise Odd("a malformed delta")
        made += piece
        if not command & 0x80 or length < 64:
            budget.tick()
    if len(made) != expected:
        raise Odd("a malformed delta")
    return bytes(made)


def _open_file(name: str | bytes, directory: int) -> int:
    file = os.open(name, _FILE, dir_fd=directory)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise Odd("not a regular file")
    return file


def _exactly(file: int, length: int, at: int) -> bytes:
    data = os.pread(file, length, at)
    if len(data) != length:
        raise Odd("a file is too short")
    return data


def _few(directory: int) -> list[str]:
    names = []
    with os.scandir(directory) as listing:
        for entry in listing:
            names.append(entry.name)
            if len(names) > _NAMES:
                raise Odd("too many files")
    return sorted(names)
