"""Whom a TLS client asks for: the server_name of its ClientHello (RFC 8446, 4.1.2; RFC 6066, 3). Hostile bytes in; nothing is decrypted.

A client that encrypts its hello (ECH) shows an outer name, and that is the one which is read here.
"""

from __future__ import annotations

MAX_HELLO_BYTES = 32 * 1024
"""More than any client's: with post-quantum key shares they have some 2 KiB."""

_HANDSHAKE, _CLIENT_HELLO, _SERVER_NAME, _HOST_NAME = 22, 1, 0, 0
_MAX_RECORD_BYTES = 16 * 1024


class NotTls(Exception):
    """The bytes are no ClientHello."""


class _Short(Exception):
    """There is less than it says."""


def read_name(data: bytes) -> str | None:
    """The name that the client asks for, in lower case; empty when it asks for none; None as long as more bytes must come.
    Errors: NotTls."""
    hello = _hello(data)
    if hello is None:
        if len(data) >= MAX_HELLO_BYTES:
            raise NotTls
        return None
    try:
        return _server_name(hello)
    except _Short:
        raise NotTls from None


def _hello(data: bytes) -> bytes | None:
    """The handshake message, out of as many records as it takes; None while some are missing."""
    message = b""
    at = 0
    while at < len(data):
        head = data[at : at + 5]
        if head[0] != _HANDSHAKE or (len(head) > 1 and head[1] != 3):
            raise NotTls
        if len(head) < 5:
            return None
        length = int.from_bytes(head[3:5], "big")
        if not 0 < length <= _MAX_RECORD_BYTES:
            raise NotTls
        message += data[at + 5 : at + 5 + length]
        if message and message[0] != _CLIENT_HELLO:
            raise NotTls
        whole = 4 + int.from_bytes(message[1:4], "big")
        if len(message) >= max(4, whole):
            return message[4:whole]
        at += 5 + length
    return None


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
