"""What a repository's `.treadle/setup` made, kept beside the mirror for workspaces of the same script and the same files.

Another session's agent will run it, so nothing of it may be an agent's: it is taken only as the worker had packed it before its agent
began (by its digest), and only from turns that began with a commit of the remote's own branch. It is as hostile as the repository: never
run, nor looked into, by this server; made by the rules of carrier/tree.py.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import struct
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import structlog

from carrier.tree import BadTree, Limits, unpack
from server.git.command import Git

SCRIPT = ".treadle/setup"
_ARCHIVE = "treadle-prepared"
_PLACED = "treadle-placed"
"""Names in a workspace's .git, as the worker knows them (worker/setup.py)."""
_SUFFIX = ".prepared"
_LINE = re.compile(r"^#[ \t]*(cache|keep):(.*)$", re.MULTILINE)
_HEAD_BYTES = 4096
_ARCHIVE_BYTES = 2 * 1024 * 1024 * 1024
_TREE = Limits(bytes=2 * _ARCHIVE_BYTES, entries=500_000)
_CHUNK = 1024 * 1024
_KEPT = 5
"""So many for each mirror, the last used ones."""
_KEPT_SECONDS = 14 * 24 * 3600.0
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

log = structlog.get_logger()


@dataclass(frozen=True)
class Prepared:
    """What a commit's script says is to be kept, and where that is, or would be."""

    file: Path
    directories: frozenset[str]


async def prepared_for(git: Git, mirror: Path, commit: str, base_branch: str) -> Prepared | None:
    """None for a commit without a script, or with one that keeps nothing. For each base branch of its own: one may be an agent's.
    Errors: GitFailed."""
    found = await _listed(git, mirror, commit, [SCRIPT])
    if not found.startswith(b"100755 blob "):
        return None
    identity = found.split()[2].decode()
    script = (await git.run("cat-file", "blob", identity, git_dir=mirror, max_output=_HEAD_BYTES)).stdout
    lines = dict(reversed(_LINE.findall(script.decode("utf-8", "replace"))))
    directories = frozenset(name for name in lines.get("keep", "").split() if _is_inside(name))
    if not directories:
        return None
    depends = [name for name in lines.get("cache", "").split() if _is_inside(name)]
    content = base_branch.encode() + b"\0" + found + (await _listed(git, mirror, commit, sorted(depends)) if depends else b"")
    return Prepared(mirror.with_suffix(_SUFFIX) / hashlib.sha256(content).hexdigest(), directories)


async def _listed(git: Git, mirror: Path, commit: str, paths: list[str]) -> bytes:
    return (await git.run("--literal-pathspecs", "ls-tree", "-z", "--full-tree", commit, "--", *paths, git_dir=mirror)).stdout


def _is_inside(name: str) -> bool:
    """Whether this is a plain path, and none into a .git, however that is spelt."""
    return name.isprintable() and all(part not in {"", ".", ".."} and not part.casefold().startswith(".git") for part in name.split("/"))


# -- taking


def take(prepared: Prepared, workspace: Path, digest: str) -> None:
    """Keep the archive that the worker left, if it is the one with this digest. Blocks. Errors: OSError."""
    folder = prepared.file.parent
    folder.mkdir(mode=0o700, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".new-", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as target, os.fdopen(_left(workspace), "rb") as source:
            if _copied(source, target) == digest:
                Path(name).replace(prepared.file)
    finally:
        Path(name).unlink(missing_ok=True)


def _left(workspace: Path) -> int:
    directory = os.open(workspace / ".git", _DIRECTORY)
    try:
        return os.open(_ARCHIVE, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    finally:
        os.close(directory)


def _copied(source: BinaryIO, target: BinaryIO) -> str:
    """The digest of what was copied, "" for what is no file or too large."""
    found = os.fstat(source.fileno())
    if not stat.S_ISREG(found.st_mode) or found.st_size > _ARCHIVE_BYTES:
        return ""
    digest = hashlib.sha256()
    while chunk := source.read(_CHUNK):
        digest.update(chunk)
        target.write(chunk)
    return digest.hexdigest()


# -- placing


def place(prepared: Prepared, workspace: Path) -> bool:
    """Put what is kept into a workspace that nobody else knows yet; False when there is nothing, or it does not fit. Blocks.
    Errors: OSError."""
    placed: list[Path] = []
    try:
        with prepared.file.open("rb") as archive:
            while name := _next_name(archive):
                if name not in prepared.directories:
                    raise BadTree(f"it has a directory {name!r} that nobody keeps")
                _place(archive, workspace, name, placed)
            os.utime(archive.fileno())
        (workspace / ".git" / _PLACED).touch()
    except FileNotFoundError:
        return False
    except (BadTree, _InTheWay, ValueError, struct.error) as error:
        log.warning("prepared.not_placed", archive=prepared.file.name, error=str(error))
        for directory in placed:
            shutil.rmtree(directory)
        return False
    return True


class _InTheWay(Exception):
    """The repository has something of its own in that place."""


def _next_name(archive: BinaryIO) -> str:
    length = archive.read(2)
    if not length:
        return ""
    return archive.read(*struct.unpack(">H", length)).decode()


def _place(archive: BinaryIO, workspace: Path, name: str, placed: list[Path]) -> None:
    target = workspace
    for part in name.split("/")[:-1]:
        target = target / part
        with suppress(FileExistsError):
            target.mkdir()
        if not stat.S_ISDIR(target.lstat().st_mode):
            raise _InTheWay(f"{name!r} is no path of directories")
    target = workspace / name
    if target.is_symlink() or target.exists():
        raise _InTheWay(f"there is a {name!r} already")
    target.mkdir()
    placed.append(target)
    unpack(archive, target, _TREE)


# -- forgetting


def tidy(mirror: Path, *, everything: bool = False) -> None:
    """Remove what was not used for long, and what is too much. Blocks. Errors: OSError."""
    folder = mirror.with_suffix(_SUFFIX)
    used = sorted(((path.stat().st_mtime, path) for path in folder.glob("*")), reverse=True)
    for position, (at, path) in enumerate(used):
        if everything or position >= _KEPT or at < time.time() - _KEPT_SECONDS:
            path.unlink(missing_ok=True)
