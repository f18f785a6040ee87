"""What a commit's tree holds: the import compares with it, so it has to fit."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import IO

from server.git.command import Git, GitFailed
from server.kernel.errors import WorkspaceFailed

LISTING_BYTES = 64 * 1024 * 1024
"""Some 500,000 files with paths of 70 bytes."""


async def list_tree(git: Git, mirror: Path, tree: str, into: IO[bytes]) -> int:
    """Append `git ls-tree -r -z -l` to a file, which git writes itself; its length. Errors: GitFailed, WorkspaceFailed when it is longer
    than LISTING_BYTES."""
    before = into.tell()
    try:
        await git.run(
            "ls-tree", "-r", "-z", "-l", "--full-tree", tree,
            git_dir=mirror, stdout=into, limits={resource.RLIMIT_FSIZE: before + LISTING_BYTES},
        )  # fmt: skip
    except GitFailed:
        if into.seek(0, os.SEEK_END) - before < LISTING_BYTES:
            raise
    # git is held to the limit from its first moments on, and not before.
    if (length := into.seek(0, os.SEEK_END) - before) >= LISTING_BYTES:
        raise WorkspaceFailed(_too_large())
    return length


def check_index(index: Path) -> None:
    """Find out at checkout, and not when the work is done: an entry of git's index is longer than its line of the listing.
    Errors: WorkspaceFailed, OSError."""
    if index.stat().st_size > LISTING_BYTES:
        raise WorkspaceFailed(_too_large())


def _too_large() -> str:
    return f"the repository has too many files: their names take more than {LISTING_BYTES // 1024**2} MiB"
