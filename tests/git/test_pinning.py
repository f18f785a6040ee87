"""What was checked is what git connects to: a name that says something else a moment later leads nowhere (DNS rebinding)."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from support.git_server import GitServer

from server.cli import checks
from server.config import Settings
from server.git import remote as remote_module
from server.git.command import Git
from server.git.remote import Remote
from server.git.remote_url import RemoteUrls
from server.git.repository import open_git
from server.kernel.errors import RepositoryUnreachable
from server.kernel.ports.repositories import Repository

PUBLIC = RemoteUrls(hosts="localhost", prefixes="")


@contextmanager
def decoy(address: str, port: int) -> Iterator[list[str]]:
    """Listens where the name leads, and notes who comes."""
    came: list[str] = []
    with socket.create_server((address, port)) as listening:

        def answer() -> None:
            while True:
                try:
                    caller, _ = listening.accept()
                except OSError:
                    return
                came.append(address)
                caller.close()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        try:
            yield came
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


async def test_git_connects_to_the_address_that_was_checked(server: GitServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is `localhost`, which is 127.0.0.1, as it was when it was checked; a moment before it was 127.0.0.2, and that is what
    the check saw. Git must go to 127.0.0.2, and must not ask again."""
    port = int(server.url.rstrip("/").rpartition(":")[2])

    async def checked(url: str, *, seconds: float) -> list[str]:
        del url, seconds
        return ["127.0.0.2"]

    monkeypatch.setattr(remote_module, "public_addresses", checked)
    remote = Remote(Git(timeout_seconds=10), PUBLIC)
    url = f"http://localhost:{port}/demo.git"
    with decoy("127.0.0.2", port) as came, pytest.raises(RepositoryUnreachable):
        await remote.advertised(Repository("tenant", "owner", url))
    assert came
    assert server.asked == []


def old_git(tmp_path: Path) -> Path:
    program = tmp_path / "git"
    program.write_text('#!/bin/sh\ncase "$*" in *--version) echo git version 2.36.6;; *--exec-path) git --exec-path;; *) exit 9;; esac\n')
    program.chmod(0o755)
    return program


async def test_a_git_that_would_ignore_the_address_reaches_no_public_host(tmp_path: Path, server: GitServer) -> None:
    remote = Remote(Git(timeout_seconds=10, program=str(old_git(tmp_path))), PUBLIC)
    with pytest.raises(RepositoryUnreachable, match=r"need Git 2\.37 or later; this server has 2\.36"):
        await remote.advertised(Repository("tenant", "owner", "https://localhost/acme/app.git"))
    assert server.asked == []


@pytest.mark.parametrize(("version", "lacks"), [("2.35.1", 3), ("2.36.6", 2), ("2.37.0", 1), ("2.38.0", 0), ("2.39.5 (Apple Git-154)", 0)])
def test_doctor_says_what_an_old_git_cannot_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, lacks: int) -> None:
    found = str(old_git(tmp_path))
    monkeypatch.setattr(checks.shutil, "which", lambda name: found)
    monkeypatch.setattr(checks, "_output", lambda argv: f"git version {version}" if argv[-1] == "--version" else str(backend(tmp_path)))
    finding = checks.git(tmp_path)
    assert finding.level is (checks.Level.LIMITED if lacks else checks.Level.FINE)
    assert finding.remedy.count("(Git 2.") == lacks


async def test_a_server_says_so_when_it_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{old_git(tmp_path).parent}:/usr/bin:/bin")
    with capture_logs() as told:
        async with open_git(Settings(data_dir=tmp_path / "data")):
            pass
    (warning,) = (line for line in told if line["event"] == "git.too_old")
    assert (warning["version"], len(warning["lacks"])) == ((2, 36), 2)


def backend(tmp_path: Path) -> Path:
    (tmp_path / "git-http-backend").touch()
    return tmp_path
