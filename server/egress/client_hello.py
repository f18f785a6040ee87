"""Whom a TLS client asks for: the server_name of its ClientHello (RFC 8446, 4.1.2; RFC 6066, 3). Hostile bytes in; nothing is decrypted.

A client that encrypts its hello (ECH) shows an outer name, and that is the one which is read here.
"""

from __future__ import annotations

MAX_HELLO_BYTES = 32 * 1024
"""More than any client's: with post-quantum key shares they have some 2 KiB."""
MAX_RECORDS = 16
"""Clients send one; a few split it."""

_HANDSHAKE, _CLIENT_HELLO, _SERVER_NAME, _HOST_NAME = 22, 1, 0, 0
_MAX_RECORD_BYTES = 16 * 1024


class NotTls(Exception):
    """The bytes are no ClientHello."""


class _Short(Exception):
    """There is less than it says."""


class HelloReader:
    """Reads a hello as it comes. A piece costs what it is long, however many came before: each record is looked at twice, when it begins
    and when it is whole."""

    def __init__(self) -> None:
        self.said = bytearray()
        """All that came, for whom it is meant."""
        self._message = bytearray()
        """The handshake message, out of as many records as it takes."""
        self._begin = 0
        """Where the record begins that is not whole yet."""
        self._end = 0
        """Where it ends; 0 as long as that is not known."""
        self._records = 0

    def add(self, piece: bytes) -> str | None:
        """The name that the client asks for, in lower case; empty when it asks for none; None as long as more bytes must come.
        Errors: NotTls."""
        self.said += piece
        while self._has_record():
            self._message += self.said[self._begin + 5 : self._end]
            self._begin, self._end = self._end, 0
            hello = self._hello()
            if hello is not None:
                return _name_in(hello)
        if len(self.said) >= MAX_HELLO_BYTES:
            raise NotTls
        return None

    def _has_record(self) -> bool:
        if not self._end:
            head = bytes(self.said[self._begin : self._begin + 5])
            if head[:1] not in (b"", bytes([_HANDSHAKE])) or head[1:2] not in (b"", b"\x03"):
                raise NotTls
            if len(head) < 5:
                return False
            length = int.from_bytes(head[3:5], "big")
            self._records += 1
            if not 0 < length <= _MAX_RECORD_BYTES or self._records > MAX_RECORDS:
                raise NotTls
            self._end = self._begin + 5 + length
        return len(self.said) >= self._end

    def _hello(self) -> bytes | None:
        """The message without its head; None while some of it is missing."""
        if self._message[0] != _CLIENT_HELLO:
            raise NotTls
        whole = 4 + int.from_bytes(self._message[1:4], "big")
        if len(self._message) < 4:
            return None
        if whole > MAX_HELLO_BYTES:
            raise NotTls
        return bytes(self._message[4:whole]) if len(self._message) >= whole else None


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def __bool__(self) -> bool:
        return bool(self._data)

    def take(self, count: int) -> bytes:
        if len(self._data) < count:
            raise _Short
        taken, self._data = self._data[:count], self._data[count:]
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        """What follows a length of `size` bytes."""
        return self.take(self.number(size))


def _name_in(hello: bytes) -> str:
    try:
        return _server_name(hello)
    except _Short:
        raise NotTls from None


def _server_name(hello: bytes) -> str:
    reader = _Reader(hello)
    reader.take(2 + 32)
    reader.vector(1)
    reader.vector(2)
    reader.vector(1)
    if not reader:
        return ""
    extensions = _Reader(reader.vector(2))
    while extensions:
        kind, body = extensions.number(2), _Reader(extensions.vector(2))
        if kind == _SERVER_NAME:
            names = _Reader(body.vector(2))
            if names.number(1) != _HOST_NAME:
                raise _Short
            name = names.vector(2)
            # More names than one, and who knows which one the host goes by.
            return "" if names else name.decode("ascii", "replace").lower()
    return ""
