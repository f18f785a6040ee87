"""The sample repository of `treadle up`: a place to push to without an account anywhere."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from server.embedded.git_http import GitHttpServer
from server.refusal import StartRefused

PORT = 7435
"""Tried first; once chosen a port is kept, since it is part of the URL of every session on the sample."""
NAME = "sample.git"
_GIT_SECONDS = 30.0
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull}

_README = """\
# Sample

A small repository for trying Treadle. `treadle up` made it and serves it on this machine only.
Break whatever you like: every session works on a branch of its own.
"""
_PROGRAM = """\
\"\"\"Greets.\"\"\"

import sys


def greeting(name: str) -> str:
    return f"Hello, {name}!"


if __name__ == "__main__":
    print(greeting(sys.argv[1] if len(sys.argv) > 1 else "world"))
"""
_FILES = {"README.md": _README, "greet.py": _PROGRAM, ".gitignore": "__pycache__/\n"}


class SampleUnusable(StartRefused):
    """The sample repository cannot be made; the message says what to change."""


@dataclass(frozen=True)
class Sample:
    """The served repository."""

    url: str
    prefix: str
    """The only prefix on loopback that the server may fetch from and push to."""
    made: bool
    """Whether this start made it: the first one."""


@contextmanager
def sample_repository(data_dir: Path) -> Iterator[Sample]:
    """Made under `<data_dir>/sample` when missing, and served for the time of the context. Errors: SampleUnusable."""
    home = data_dir / "sample"
    root = home / "repositories"
    made = not (root / NAME).exists()
    if made:
        _make(root)
    server = _serve(root, home / "port")
    try:
        url = f"{server.url}{NAME}"
        (home / "url").write_text(url + "\n", encoding="utf-8")
        yield Sample(url, server.url, made)
    finally:
        server.stop()


def _serve(root: Path, port_file: Path) -> GitHttpServer:
    server = GitHttpServer(root, port=_kept_port(port_file))
    try:
        server.start()
    except OSError:
        # Somebody else has it now. Sessions with the old URL can be read, but not go on.
        server = GitHttpServer(root)
        server.start()
    port_file.write_text(server.url.rsplit(":", 1)[1].strip("/"), encoding="utf-8")
    return server


def _kept_port(port_file: Path) -> int:
    try:
        return int(port_file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return PORT


def _make(root: Path) -> None:
    """Under another name first: a start that is cut off here begins anew with the next."""
    unfinished = root / f"{NAME}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    root.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished.mkdir(parents=True)
    _git(unfinished, "init", "--quiet", "--bare", "--template=", "--initial-branch=main", ".")
    _git(unfinished, "fast-import", "--quiet", "--date-format=now", stdin=_history().encode())
    unfinished.rename(root / NAME)


def _history() -> str:
    """One commit, as `git fast-import` reads it."""
    message = "A small repository for trying Treadle\n"
    lines = [f"commit refs/heads/main\ncommitter Treadle <treadle@treadle.invalid> now\ndata {len(message)}\n{message}"]
    lines += [f"M 100644 inline {path}\ndata {len(content)}\n{content}" for path, content in _FILES.items()]
    return "\n".join(lines) + "\n"


def _git(repository: Path, *arguments: str, stdin: bytes = b"") -> None:
    # Our own repository and our own words: here GitPython may do it. It is imported for the one start that needs it.
    try:
        from git import Git, GitCommandError
    except ImportError:
        raise SampleUnusable("git is not installed; on Debian or Ubuntu: apt-get install git") from None
    with tempfile.TemporaryFile() as source:
        source.write(stdin)
        source.seek(0)
        try:
            Git(str(repository)).execute(["git", *arguments], istream=source, env=_ENVIRONMENT, kill_after_timeout=_GIT_SECONDS)
        except GitCommandError as error:
            raise SampleUnusable(f"git {arguments[0]} failed: {str(error.stderr).strip() or error}") from error
