"""The bridge to `git http-backend` that `treadle up` serves its sample with."""

from __future__ import annotations

import os
import socket
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support.git_server import GitServer, git

from server.embedded.git_http import GitHttpServer

OTHER_PATHS = [
    "/",
    "/demo.git",
    "/demo.git/config",
    "/demo.git/HEAD",
    "/demo.git/objects/info/packs",
    "/../secret.git/info/refs",
    "/missing.git/info/refs",
    "/link.git/info/refs?service=git-upload-pack",
    "/demo.git/info/refs?service=git-upload-archive",
]


async def test_a_clone_and_a_large_push_go_through(server: GitServer, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", f"{server.url}demo.git", "clone")
    clone = tmp_path / "clone"
    (clone / "large").write_bytes(os.urandom(3 * 1024 * 1024))  # more than git sends without chunks
    git(clone, "add", "large")
    git(clone, "commit", "-qm", "large")
    git(clone, "push", "-q", "origin", "HEAD:refs/heads/large")
    assert git(server.root / "demo.git", "rev-parse", "large") == git(clone, "rev-parse", "HEAD")


@pytest.mark.parametrize("path", OTHER_PATHS)
def test_nothing_else_is_served(server: GitServer, tmp_path: Path, path: str) -> None:
    git(tmp_path, "init", "-q", "--bare", "secret.git")
    (server.root / "link.git").symlink_to(tmp_path / "secret.git")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(server.url.rstrip("/") + path, timeout=5)
    refused.value.close()
    assert refused.value.code == 404


def test_it_can_be_started_again_on_its_port(tmp_path: Path) -> None:
    first = GitHttpServer(tmp_path)
    with first:
        port = int(first.url.rsplit(":", 1)[1].rstrip("/"))
    with GitHttpServer(tmp_path, port=port) as second:
        assert second.url == f"http://127.0.0.1:{port}/"
    with pytest.raises(RuntimeError):
        _ = second.url


def answer_to(server: GitServer, request: str) -> str:
    """The status line that a request gets, sent as it is."""
    with socket.create_connection(("127.0.0.1", urlsplit(server.url).port or 0), timeout=10) as connection:
        connection.sendall(request.replace("HOST", urlsplit(server.url).netloc).encode())
        connection.shutdown(socket.SHUT_WR)
        return connection.makefile("rb").read().split(b"\r\n")[0].decode()


@pytest.mark.parametrize(
    "framing",
    ["Content-Length: abc", "Content-Length: -5", "Transfer-Encoding: chunked\r\n\r\nxyz\r\n", "Transfer-Encoding: chunked\r\n\r\n-5\r\n"],
)
def test_a_body_of_no_known_length_is_a_bad_request(server: GitServer, framing: str, capfd: pytest.CaptureFixture[str]) -> None:
    request = f"POST /demo.git/git-upload-pack HTTP/1.1\r\nHost: HOST\r\n{framing}\r\n\r\n"
    assert answer_to(server, request) == "HTTP/1.1 400 Bad Request"
    assert "Traceback" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_a_page_whose_name_was_pointed_here_gets_nothing(server: GitServer, host: str) -> None:
    """DNS rebinding: to a browser it is of the same origin as that page."""
    for line in (f"Host: {host}\r\n", f"Host: HOST\r\nHost: {host}\r\n"):
        request = f"GET /demo.git/info/refs?service=git-upload-pack HTTP/1.1\r\n{line}\r\n"
        assert answer_to(server, request) == "HTTP/1.1 421 Misdirected Request"
    good = "GET /demo.git/info/refs?service=git-upload-pack HTTP/1.1\r\nHost: HOST\r\n\r\n"
    for name in ("HOST", "localhost:" + str(urlsplit(server.url).port)):
        assert answer_to(server, good.replace("HOST", name)) == "HTTP/1.1 200 OK"
