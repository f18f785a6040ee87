"""The sample repository of `treadle up`: a place to push to without an account anywhere."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from server.embedded.git_http import GitHttpServer
from server.refusal import StartRefused

_KEPT_PORTS = 8
NAME = "sample.git"
_NEW = "new"
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
    prefixes: tuple[str, ...]
    """The only prefixes on loopback that the server may fetch from and push to: all are ours, now."""
    moved: bool
    """Whether somebody else has the port that was asked for."""
    new: bool
    """Whether no start came up with it yet; see `came_up`."""


@contextmanager
def sample_repository(data_dir: Path, port: int) -> Iterator[Sample]:
    """Made under `<data_dir>/sample` when missing, and served for the time of the context, on `port` when nobody else is there. A port that
    it had once is part of sessions' URLs: it is served there too, while it can be. Errors: SampleUnusable."""
    home = data_dir / "sample"
    root = home / "repositories"
    if not (root / NAME).exists():
        _make(root)
    with ExitStack() as stack:
        prefixes = _serve(stack, root, home / "port", port)
        url = f"{prefixes[0]}{NAME}"
        (home / "url").write_text(url + "\n", encoding="utf-8")
        yield Sample(url, prefixes, moved=port != 0 and f":{port}/" not in url, new=(home / _NEW).exists())


def came_up(data_dir: Path) -> None:
    """The start was none that failed, so it was the first one, and the next is not."""
    (data_dir / "sample" / _NEW).unlink(missing_ok=True)


def _serve(stack: ExitStack, root: Path, ports_file: Path, wanted: int) -> tuple[str, ...]:
    """The prefixes that it is served under, the best one first. Sessions with another one can be read, but not go on."""
    kept = _kept_ports(ports_file)
    servers = [server for port in dict.fromkeys((wanted, *kept)) if port and (server := _started(root, port))] or [_anywhere(root)]
    for server in servers:
        stack.callback(server.stop)
    prefixes = tuple(server.url for server in servers)
    now = dict.fromkeys((*kept, *(urlsplit(prefix).port for prefix in prefixes)))
    ports_file.write_text("".join(f"{port}\n" for port in [*now][-_KEPT_PORTS:]), encoding="utf-8")
    return prefixes


def _started(root: Path, port: int) -> GitHttpServer | None:
    """None when somebody else has the port."""
    server = GitHttpServer(root, port=port)
    try:
        server.start()
    except OSError:
        return None
    return server


def _anywhere(root: Path) -> GitHttpServer:
    server = GitHttpServer(root)
    server.start()
    return server


def _kept_ports(ports_file: Path) -> list[int]:
    try:
        return [int(line) for line in ports_file.read_text(encoding="utf-8").split()]
    except (FileNotFoundError, ValueError):
        return []


def _make(root: Path) -> None:
    """Under another name first: a start that is cut off here begins anew with the next."""
    unfinished = root / f"{NAME}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    root.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished.mkdir(parents=True)
    _git(unfinished, "init", "--quiet", "--bare", "--template=", "--initial-branch=main", ".")
    _git(unfinished, "fast-import", "--quiet", "--date-format=now", stdin=_history().encode())
    (root.parent / _NEW).touch()
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
