"""The bridge to `git http-backend` that `treadle up` serves its sample with."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from pathlib import Path

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
