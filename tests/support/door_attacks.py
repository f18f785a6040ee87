# A script of attacks, each as short as an attacker would have it.
# ruff: noqa: PTH123, BLE001
"""Runs as a hostile agent would in a worker whose session allows some hosts, and prints as JSON what came of each attack on the way there.
Standard library only.

What came of it is the number of the proxy's answer, `cut` where the connection ended instead, `not reached` where only the host that is
allowed got what was meant for another, the name of an error, or `DONE`. Each attack has the one that shows that the door held.

Argument: a file with JSON (class Told).
"""

from __future__ import annotations

import errno
import json
import os
import socket
import ssl
import sys
from collections.abc import Callable
from dataclasses import dataclass

SECONDS = 20.0


@dataclass(frozen=True)
class Told:
    """What there is. The names are the tests' own."""

    port: int
    allowed: str
    """A host over TLS, and `plain` one without, which the session allows, as it does all names below `wild`."""
    plain: str
    wild: str
    evil: str
    """A host that it does not allow, where somebody waits who says EVIL."""
    private: str
    """The address of that host."""
    other: str
    """The directory of another turn's doors."""
    envoy: str
    """The socket behind the door."""


def proxy() -> socket.socket:
    made = socket.create_connection(("127.0.0.1", int(os.environ["HTTPS_PROXY"].rpartition(":")[2])), SECONDS)
    made.settimeout(SECONDS)
    return made


def answer(request: str) -> bytes:
    with proxy() as made:
        made.sendall(request.encode("latin-1"))
        return read_all(made)


def read_all(made: socket.socket) -> bytes:
    heard = b""
    try:
        while piece := made.recv(65536):
            heard += piece
    except ConnectionError:
        pass
    return heard


def number(request: str) -> str:
    heard = answer(request)
    return heard.split(b" ")[1].decode() if heard.startswith(b"HTTP/1.1 ") else "cut"


def tunnel(target: str) -> str:
    """The answer to a request for one; what is in it is not waited for."""
    with proxy() as made:
        made.sendall(f"CONNECT {target} HTTP/1.1\r\n\r\n".encode())
        return made.recv(65536).split(b" ")[1].decode()


def opened(told: Told) -> socket.socket:
    made = proxy()
    made.sendall(f"CONNECT {told.allowed}:{told.port} HTTP/1.1\r\n\r\n".encode())
    assert b" 200 " in made.recv(65536)
    return made


def without_tls(told: Told) -> str:
    with opened(told) as made:
        made.sendall(b"GET / HTTP/1.1\r\nhost: evil\r\n\r\n")
        return "DONE" if read_all(made) else "cut"


def tls(told: Told, name: str | None) -> str:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with context.wrap_socket(opened(told), server_hostname=name) as made:
            made.sendall(b"hello")
            return "DONE" if made.recv(100) else "cut"
    except (ssl.SSLError, ConnectionError):
        return "cut"


def meant_for_evil(told: Told, request: str) -> str:
    heard = answer(request.format(evil=f"{told.evil}:{told.port}", plain=f"{told.plain}:{told.port}"))
    return "DONE" if b"EVIL" in heard else "not reached" if b"heard" in heard else heard.split(b" ")[1].decode()


def rebinding(told: Told) -> str:
    """The name's first answer is public, all later ones are not."""
    first = tunnel(f"rebinding.{told.wild}:{told.port}")
    return tunnel(f"rebinding.{told.wild}:{told.port}") if first == "200" else f"first {first}"


def connects(family: int, address: object) -> str:
    with socket.socket(family) as made:
        made.settimeout(3)
        made.connect(address)
    return "DONE"


def connects_in(folder: str, name: str) -> str:
    return connects(socket.AF_UNIX, f"/proc/self/fd/{os.open(folder, os.O_PATH)}/{name}")


ATTACKS: dict[str, tuple[Callable[[Told], str], str]] = {
    "reach a host that is not allowed": (lambda t: tunnel(f"{t.evil}:{t.port}"), "403"),
    "reach it without TLS": (lambda t: number(f"GET http://{t.evil}:{t.port}/ HTTP/1.1\r\n\r\n"), "403"),
    "reach another port of the host that is allowed": (lambda t: tunnel(f"{t.allowed}:22"), "403"),
    "reach a private address": (lambda t: tunnel(f"{t.private}:{t.port}"), "403"),
    "reach this machine": (lambda t: tunnel(f"localhost:{t.port}"), "403"),
    "reach the metadata address": (lambda _: tunnel("169.254.169.254:80"), "403"),
    "reach it without TLS and by its path": (lambda _: number("GET http://169.254.169.254/latest/meta-data/ HTTP/1.1\r\n\r\n"), "403"),
    "write it as IPv6": (lambda _: tunnel("[::ffff:169.254.169.254]:80"), "403"),
    "write it as IPv6 in hexadecimal digits": (lambda _: tunnel("[::ffff:a9fe:a9fe]:80"), "403"),
    "write it as one decimal number": (lambda _: tunnel("2852039166:80"), "403"),
    "write it in octal digits": (lambda _: tunnel("0251.0376.0251.0376:80"), "403"),
    "write it in hexadecimal digits": (lambda _: tunnel("0xa9fea9fe:80"), "403"),
    "write it with a dot at its end": (lambda _: tunnel("169.254.169.254.:80"), "403"),
    "write the own machine short": (lambda t: tunnel(f"127.1:{t.port}"), "403"),
    "use a name whose address is private": (lambda t: tunnel(f"private.{t.wild}:{t.port}"), "403"),
    "use a name of which one address is private": (lambda t: tunnel(f"mixed.{t.wild}:{t.port}"), "403"),
    "use a name whose address is the metadata address in IPv6": (lambda t: tunnel(f"mapped.{t.wild}:{t.port}"), "403"),
    "use a name that changes its address": (rebinding, "403"),
    "name the host that is allowed as a user": (lambda t: meant_for_evil(t, "GET http://{plain}@{evil}/ HTTP/1.1\r\n\r\n"), "400"),
    "name another host in the header": (lambda t: meant_for_evil(t, "GET http://{plain}/ HTTP/1.1\r\nhost: {evil}\r\n\r\n"), "not reached"),
    "send a second request behind the first": (
        lambda t: meant_for_evil(t, "GET http://{plain}/ HTTP/1.1\r\n\r\nGET http://{evil}/ HTTP/1.1\r\n\r\n"),
        "not reached",
    ),
    "hide a second request in two lengths": (
        lambda t: meant_for_evil(
            t,
            "POST http://{plain}/ HTTP/1.1\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n"
            "0\r\n\r\nGET http://{evil}/ HTTP/1.1\r\n\r\n",
        ),
        "400",
    ),
    "break a line of the request": (lambda t: meant_for_evil(t, "GET http://{plain}/ HTTP/1.1\r\nx: a\nhost: {evil}\r\n\r\n"), "400"),
    "speak another protocol to the proxy": (lambda _: number("\x05\x01\x00\r\n\r\n"), "400"),
    "send a head without end": (lambda _: number("GET http://x/ HTTP/1.1\r\nx: " + "a" * 20_000 + "\r\n\r\n"), "400"),
    "send something else than TLS through a tunnel": (without_tls, "cut"),
    "ask for another host inside a tunnel": (lambda t: tls(t, t.evil), "cut"),
    "ask for no host inside a tunnel": (lambda t: tls(t, None), "cut"),
    "go past the proxy": (lambda t: connects(socket.AF_INET, ("127.77.0.1", t.port)), "ECONNREFUSED"),
    "use another turn's door": (lambda t: connects_in(t.other, "egress.sock"), "ENOENT"),
    "use what is behind the door": (lambda t: connects_in(os.path.dirname(t.envoy), os.path.basename(t.envoy)), "ENOENT"),  # noqa: PTH119, PTH120
}
CONTROLS: dict[str, Callable[[Told], str]] = {
    "reach the host that is allowed": lambda t: tls(t, t.allowed),
    "reach one without TLS": lambda t: (
        "DONE" if b"heard GET / HTTP/1.1" in answer(f"GET http://{t.plain}:{t.port}/ HTTP/1.1\r\n\r\n") else ""
    ),
    "use its own door": lambda _: connects_in("/run/models", "egress.sock"),
}


def outcome(attack: Callable[[Told], str], told: Told) -> str:
    try:
        return attack(told)
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, repr(error))
    except BaseException as error:
        return repr(error)


def main() -> None:
    with open(sys.argv[1]) as file:
        told = Told(**json.load(file))
    print(json.dumps({name: outcome(attack, told) for name, attack in ({n: a for n, (a, _) in ATTACKS.items()} | CONTROLS).items()}))


if __name__ == "__main__":
    main()
