"""What an agent asks of its proxy: the head of one HTTP request, read strictly. Hostile bytes in, values out; nothing is read or written
here.

Tunnels (CONNECT) and requests with an absolute `http` URL (RFC 9110, 9.3.6; RFC 9112, 3.2) are understood, and nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_HEAD_BYTES = 16 * 1024
MAX_HEADERS = 100
"""Programs send some ten."""

_HOST = rb"([A-Za-z0-9_.-]{1,254}|\[[0-9A-Fa-f:.]{2,45}\])"
_LINE = re.compile(rb"([A-Z]{1,20}) ([\x21-\x7e]+) (HTTP/1\.[01])")
_AUTHORITY = re.compile(_HOST + rb":([0-9]{1,5})")
_URL = re.compile(rb"(?i:http)://" + _HOST + rb"(?::([0-9]{1,5}))?((?:[/?].*)?)")
# None of these has two repeats beside each other that can match the same bytes: one that has them is tried in all ways to share them out,
# and the time for it grows with a power of the length.
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_HOP_BY_HOP = frozenset({b"connection", b"host", b"keep-alive", b"te", b"trailer", b"upgrade", b"http2-settings"})
"""Of one connection only, and `host`, which is written anew from the URL; so is all that begins with `proxy-`."""


class NotProxying(Exception):
    """No request for a proxy; the message is a sentence for whoever wrote it."""


@dataclass(frozen=True)
class ProxyRequest:
    """Whom to call."""

    method: str
    host: str
    """In lower case, without a dot at its end; an IPv6 address in brackets."""
    port: int
    head: bytes = b""
    """What the host is told of a request over plain HTTP; empty for a tunnel."""

    @property
    def is_tunnel(self) -> bool:
        """Whether bytes shall pass both ways."""
        return self.method == "CONNECT"


def read_request(head: bytes) -> ProxyRequest:
    """`head` ends with its empty line. Errors: NotProxying."""
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    line = _LINE.fullmatch(first)
    if line is None:
        raise NotProxying("this is a proxy for HTTP/1.1")
    method, target, version = line.groups()
    if method == b"CONNECT":
        host, port = _authority(target)
        return ProxyRequest("CONNECT", host, port)
    url = _URL.fullmatch(target)
    if url is None:
        raise NotProxying("this is a proxy: ask for http://HOST/PATH, or CONNECT HOST:443 for https")
    host, port = _host(url[1]), _port(url[2] or b"80")
    path = url[3] if url[3].startswith(b"/") else b"/" + url[3]
    return ProxyRequest(method.decode(), host, port, _head(method, path, version, _written(host, port), lines))


def _authority(target: bytes) -> tuple[str, int]:
    found = _AUTHORITY.fullmatch(target)
    if found is None:
        raise NotProxying("a tunnel is for HOST:PORT")
    return _host(found[1]), _port(found[2])


def _host(text: bytes) -> str:
    return text.decode().lower().removesuffix(".")


def _port(digits: bytes) -> int:
    port = int(digits)
    if not 0 < port < 65536:
        raise NotProxying("there is no such port")
    return port


def _written(host: str, port: int) -> str:
    return host if port == 80 else f"{host}:{port}"


def _head(method: bytes, path: bytes, version: bytes, host: str, lines: list[bytes]) -> bytes:
    """One request, and no other after it on the same connection: whom that would be for, nobody would have looked at."""
    if len(lines) > MAX_HEADERS:
        raise NotProxying(f"the request has more than {MAX_HEADERS} headers")
    headers = [_header(line) for line in lines]
    named = {name for header, value in headers if header == b"connection" for name in value.lower().replace(b" ", b"").split(b",")}
    kept = [
        (name, value)
        for name, value in headers
        if name not in _HOP_BY_HOP and name not in named - {b"content-length", b"transfer-encoding"} and not name.startswith(b"proxy-")
    ]
    lengths = [name for name, _ in kept if name in (b"content-length", b"transfer-encoding")]
    if len(lengths) > 1:
        raise NotProxying("the length of the request can be read in two ways")
    written = [b"%b %b %b" % (method, path, version), b"host: " + host.encode(), *(name + b": " + value for name, value in kept)]
    return b"\r\n".join([*written, b"connection: close", b"", b""])


def _header(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
        raise NotProxying("a header of the request is malformed")
    return name.lower(), value.strip(b" \t")
