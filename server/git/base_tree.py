"""What a commit's tree holds: the import compares with it, so it has to fit."""

from __future__ import annotations

from pathlib import Path

from server.git.command import Git
from server.kernel.errors import WorkspaceFailed

LISTING_BYTES = 64 * 1024 * 1024
"""Some 500,000 files with paths of 70 bytes."""


async def list_tree(git: Git, mirror: Path, tree: str) -> bytes:
    """`git ls-tree -r -z -l`, whole. Errors: GitFailed, WorkspaceFailed when it is longer than LISTING_BYTES."""
    found = await git.run("ls-tree", "-r", "-z", "-l", "--full-tree", tree, git_dir=mirror, max_output=LISTING_BYTES)
    if found.truncated:
        raise WorkspaceFailed(_too_large())
    return found.stdout


def check_index(index: Path) -> None:
    """Find out at checkout, and not when the work is done: an entry of git's index is longer than its line of the listing.
    Errors: WorkspaceFailed, OSError."""
    if index.stat().st_size > LISTING_BYTES:
        raise WorkspaceFailed(_too_large())


def _too_large() -> str:
    return f"the repository has too many files: their names take more than {LISTING_BYTES // 1024**2} MiB"
