"""`session.tar.gz`, a member at a time: gzip and tar as little as they need to be, for bytes that a stranger wrote.

Python's `tarfile` parses the headers, and does nothing else: its own reading holds a list of all members, extended headers of any length,
and ways to write that its filters do not close (CVE-2025-4517).
"""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from server.legacy.protocol import Limits

_BLOCK = 512
_PIECE = 256 * 1024
_MAX_NAME = 255
_MAX_TARGET = 4095
_RECORD = re.compile(rb"([1-9][0-9]{0,5}) ([^=\n]{1,256})=", re.DOTALL)

FILE, DIRECTORY, LINK = "file", "directory", "link"
_KINDS = {tarfile.REGTYPE: FILE, tarfile.AREGTYPE: FILE, tarfile.CONTTYPE: FILE, tarfile.DIRTYPE: DIRECTORY, tarfile.SYMTYPE: LINK}
_REFUSED_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device",
    tarfile.FIFOTYPE: "a fifo",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


class Refused(Exception):
    """The archive is none, or not an honest one. `reason` is one of: CORRUPT, BAD_NAME, BAD_KIND, BAD_HEADER, DUPLICATE, TOO_LARGE,
    TOO_MANY, TOO_DEEP, BOMB."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Member:
    """One file, directory or symbolic link."""

    path: tuple[bytes, ...]
    """Its names from the archive's root; empty for that root."""
    kind: str
    size: int
    executable: bool
    mtime: float
    target: bytes


class Archive:
    """Reads an archive once, from its beginning to its end. Nothing in memory grows with its size. Errors everywhere: Refused."""

    def __init__(self, source: BinaryIO, limits: Limits) -> None:
        self._stream = _Inflated(source, limits)
        self._limits = limits
        self._left = 0
        """Of the current member's content, with its padding."""
        self.members = 0

    @property
    def unpacked_bytes(self) -> int:
        """How much came out so far."""
        return self._stream.given

    def __iter__(self) -> Iterator[Member]:
        """Each member. What nobody has read of its content is passed over."""
        while (member := self._next()) is not None:
            self.members += 1
            if self.members > self._limits.members:
                raise Refused("TOO_MANY", f"more than {self._limits.members:,} members")
            self._left = -(-member.size // _BLOCK) * _BLOCK
            yield member
            self._stream.skip(self._left)
        self._stream.drain()

    def content(self, member: Member) -> Iterator[bytes]:
        """The bytes of the member that was given last; to be read to the end."""
        left = member.size
        while left:
            piece = self._stream.exactly(min(left, _PIECE))
            left -= len(piece)
            self._left -= len(piece)
            yield piece

    def _next(self) -> Member | None:
        extended: dict[bytes, bytes] = {}
        while (block := self._stream.block()) is not None and any(block):
            try:
                header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except tarfile.HeaderError as error:
                raise Refused("CORRUPT", str(error)) from None
            if header.type in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE):
                self._members_header(header, extended)
                continue
            return _member(header, extended, self._limits)
        if extended:
            raise Refused("CORRUPT", "it ends behind an extended header")
        return None

    def _members_header(self, header: tarfile.TarInfo, extended: dict[bytes, bytes]) -> None:
        if not 0 <= header.size <= self._limits.header_bytes:
            raise Refused("BAD_HEADER", f"an extended header of {header.size:,} bytes")
        data = self._stream.exactly(header.size)
        self._stream.skip(-header.size % _BLOCK)
        if header.type == tarfile.XGLTYPE:
            if _records(data).keys() & {b"path", b"linkpath", b"size"}:
                raise Refused("BAD_HEADER", "a header that names all members alike")
            return
        found = _records(data) if header.type == tarfile.XHDTYPE else {_LONG[header.type]: data.rstrip(b"\0")}
        if found.keys() & extended.keys():
            raise Refused("BAD_HEADER", "extended headers that contradict each other")
        extended.update(found)


_LONG = {tarfile.GNUTYPE_LONGNAME: b"path", tarfile.GNUTYPE_LONGLINK: b"linkpath"}


def _member(header: tarfile.TarInfo, extended: dict[bytes, bytes], limits: Limits) -> Member:
    if header.type in _REFUSED_KINDS or any(key.startswith(b"GNU.sparse") for key in extended):
        raise Refused("BAD_KIND", f"it holds {_REFUSED_KINDS.get(header.type, 'a sparse file')}")
    if header.type not in _KINDS:
        raise Refused("BAD_KIND", f"it holds a member of type {header.type!r}")
    kind = _KINDS[header.type]
    size = int(extended.get(b"size", header.size)) if kind == FILE else 0
    if not 0 <= size <= limits.unpacked_bytes:
        raise Refused("TOO_LARGE", f"a file of {size:,} bytes")
    target = extended.get(b"linkpath", _bytes(header.linkname)) if kind == LINK else b""
    if kind == LINK and (not 0 < len(target) <= _MAX_TARGET or b"\0" in target):
        raise Refused("BAD_NAME", "a link that leads nowhere")
    path = _path(extended.get(b"path", _bytes(header.name)), limits)
    return Member(path, kind, size, bool(header.mode & 0o100), header.mtime, target)


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _path(name: bytes, limits: Limits) -> tuple[bytes, ...]:
    if name.startswith(b"/") or b"\0" in name or len(name) > limits.path_bytes:
        raise Refused("BAD_NAME", f"the path {shown(name)}")
    parts = tuple(part for part in name.split(b"/") if part not in (b"", b"."))
    if b".." in parts or any(len(part) > _MAX_NAME for part in parts):
        raise Refused("BAD_NAME", f"the path {shown(name)}")
    if len(parts) > limits.depth:
        raise Refused("TOO_DEEP", f"a path of {len(parts):,} names")
    return parts


def shown(path: bytes) -> str:
    """A path in a refusal."""
    return repr(path[:100].decode("utf-8", "backslashreplace"))


def _records(data: bytes) -> dict[bytes, bytes]:
    """Of an extended header (pax(1)): `LENGTH KEY=VALUE\\n`, the length counting all of it."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        match = _RECORD.match(data, at)
        end = at + int(match[1]) if match else 0
        if match is None or not match.end() < end <= len(data) or data[end - 1 : end] != b"\n":
            raise Refused("BAD_HEADER", "an extended header that is malformed")
        found[match[2]] = data[match.end() : end - 1]
        at = end
    size = found.get(b"size")
    if size is not None and not (size.isdigit() and len(size) < 20):
        raise Refused("BAD_HEADER", "an extended header that is malformed")
    return found


class _Inflated:
    """The bytes inside the gzip, no more than they may be."""

    def __init__(self, source: BinaryIO, limits: Limits) -> None:
        self._source = source
        self._limits = limits
        self._inflate = zlib.decompressobj(wbits=31)
        self._held = bytearray()
        self._taken = 0
        self.given = 0

    def block(self) -> bytes | None:
        """The next 512 bytes; None at the end."""
        return self.exactly(_BLOCK) if self._fill(_BLOCK) or self._held else None

    def exactly(self, size: int) -> bytes:
        """Errors: Refused when there are fewer."""
        if not self._fill(size):
            raise Refused("CORRUPT", "it breaks off")
        piece = bytes(self._held[:size])
        del self._held[:size]
        return piece

    def skip(self, size: int) -> None:
        """Pass over so many bytes."""
        while size:
            size -= len(self.exactly(min(size, _PIECE)))

    def drain(self) -> None:
        """To the end: only there it shows whether the bytes were whole."""
        self._held.clear()
        while self._fill(1):
            self._held.clear()

    def _fill(self, size: int) -> bool:
        while len(self._held) < size and not self._inflate.eof:
            piece = self._inflate.unconsumed_tail or self._read()
            try:
                out = self._inflate.decompress(piece, _PIECE)
            except zlib.error as error:
                raise Refused("CORRUPT", f"it is no gzip: {error}") from None
            if not (piece or out or self._inflate.eof):
                raise Refused("CORRUPT", "it breaks off")
            self.given += len(out)
            self._held += out
            self._judge()
        return len(self._held) >= size

    def _read(self) -> bytes:
        piece = self._source.read(_PIECE)
        self._taken += len(piece)
        if self._taken > self._limits.archive_bytes:
            raise Refused("TOO_LARGE", f"more than {self._limits.archive_bytes:,} bytes")
        return piece

    def _judge(self) -> None:
        if self.given > self._limits.unpacked_bytes:
            raise Refused("TOO_LARGE", f"more than {self._limits.unpacked_bytes:,} bytes come out of it")
        used = self._taken - len(self._inflate.unconsumed_tail)
        if self.given > self._limits.ratio_from and self.given > self._limits.ratio * used:
            raise Refused("BOMB", f"more than {self._limits.ratio} bytes come out of each of its own")
