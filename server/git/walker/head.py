"""Where a workspace's own `.git` stands: the commit that HEAD leads to, read as git's files and not by git."""

from __future__ import annotations

import os
import re

from server.git.walker.content import open_regular
from server.git.walker.objects import Odd

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LINE_BYTES = 4096
_PACKED_BYTES = 4 * 1024 * 1024
_ID = re.compile(rb"[0-9a-f]{40}\Z")
_REF = re.compile(rb"ref:[ \t]*(refs/[^\0\n]+)\Z")


def head_commit(git: int) -> bytes:
    """The id that HEAD names, directly or by one branch. Errors: Odd, OSError."""
    told = _line(b"HEAD", git)
    if _ID.match(told):
        return told
    found = _REF.match(told)
    if not found:
        raise Odd("HEAD names nothing")
    commit = _loose(found[1], git) or _packed(found[1], git)
    if not _ID.match(commit):
        raise Odd("HEAD leads nowhere")
    return commit


def _loose(ref: bytes, git: int) -> bytes:
    *folders, name = ref.split(b"/")
    here = os.dup(git)
    try:
        for folder in folders:
            if folder in {b"", b".", b".."}:
                raise Odd("HEAD leads elsewhere")
            below = os.open(folder, _DIRECTORY, dir_fd=here)
            os.close(here)
            here = below
        return _line(name, here)
    except FileNotFoundError:
        return b""
    finally:
        os.close(here)


def _packed(ref: bytes, git: int) -> bytes:
    for line in _read(b"packed-refs", git, _PACKED_BYTES).split(b"\n"):
        commit, _, name = line.partition(b" ")
        if name == ref:
            return commit
    return b""


def _line(name: bytes, directory: int) -> bytes:
    return _read(name, directory, _LINE_BYTES).rstrip()


def _read(name: bytes, directory: int, most: int) -> bytes:
    file, status = open_regular(name, directory)
    try:
        if status.st_size > most:
            raise Odd("a large file of refs")
        return os.pread(file, most, 0)
    finally:
        os.close(file)
