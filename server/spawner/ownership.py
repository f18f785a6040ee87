"""Giving a tree to a worker's user: nobody may write there meanwhile, but somebody hostile may have before."""

from __future__ import annotations

import os
from pathlib import Path


def give(root: Path, uid: int, gid: int) -> None:
    """Make everything below `root` somebody's, and last `root` itself, so that its owner tells that it is done. Links are not followed,
    and a tree of any depth takes two descriptors. Blocks. Only for root, whom no directory keeps out."""
    here = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        # For each level the directories that are still to be seen; the way back up is `..`, which is true while nobody moves anything.
        levels = [_give_entries(here, uid, gid)]
        while True:
            if levels[-1]:
                here = _gone_to(here, levels[-1].pop())
                levels.append(_give_entries(here, uid, gid))
                continue
            levels.pop()
            if not levels:
                os.fchown(here, uid, gid)
                return
            here = _gone_to(here, "..")
    finally:
        os.close(here)


def _gone_to(here: int, name: str) -> int:
    there = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
    os.close(here)
    return there


def _give_entries(directory: int, uid: int, gid: int) -> list[str]:
    """What is in a directory; returns the directories among it."""
    with os.scandir(directory) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, _ in found:
        os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)
    return [name for name, is_directory in found if is_directory]
