"""Giving a tree to another user, while somebody hostile may still change it."""

from __future__ import annotations

import ctypes
import os
import stat
from pathlib import Path

_EMPTY_PATH = 0x1000
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_libc = ctypes.CDLL(None, use_errno=True)


def give(root: Path, source: int, target: tuple[int, int]) -> None:
    """Make `target` (uid and gid) the owner of all that belongs to `source` below `root`, and last of `root` itself, so that its owner
    tells that it is done.

    What was looked at is what is given, by its descriptor: whatever its name means meanwhile, nobody gets what was not `source`'s (a link
    to a file of somebody else, a second name of it, a directory that was moved here). A tree of any depth takes a few descriptors.
    Blocks. Only for root, whom no directory keeps out.
    """
    top = os.open(root, _DIRECTORY)
    here = os.dup(top)
    try:
        # For each level the directories that are still to be seen; the way back up is `..`, which in a tree that somebody moves leads
        # elsewhere, where nothing is given but `source`'s own.
        levels = [_give_entries(here, source, target)]
        while levels:
            names = levels[-1]
            if not names:
                levels.pop()
                if levels:
                    here = _gone_to(here, "..")
            elif (below := _below(here, names.pop())) is not None:
                os.close(here)
                here = below
                levels.append(_give_entries(here, source, target))
        _give(top, source, target)
    finally:
        os.close(here)
        os.close(top)


def _below(here: int, name: str) -> int | None:
    """None when it is no directory any more."""
    try:
        return os.open(name, _DIRECTORY, dir_fd=here)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _gone_to(here: int, name: str) -> int:
    there = os.open(name, _DIRECTORY, dir_fd=here)
    os.close(here)
    return there


def _give_entries(directory: int, source: int, target: tuple[int, int]) -> list[str]:
    """What is in a directory; returns the directories among it that are one of theirs."""
    directories = []
    for name in os.listdir(directory):
        try:
            # Of the thing itself, whatever it is.
            found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        except FileNotFoundError:
            continue
        try:
            if _give(found, source, target):
                directories.append(name)
        finally:
            os.close(found)
    return directories


def _give(found: int, source: int, target: tuple[int, int]) -> bool:
    """Give it, if it is the source's; whether it is a directory of either."""
    status = os.fstat(found)
    if status.st_uid == source and _libc.fchownat(found, b"", *target, _EMPTY_PATH) != 0:
        raise OSError(ctypes.get_errno(), "fchownat")
    return stat.S_ISDIR(status.st_mode) and status.st_uid in (source, target[0])
