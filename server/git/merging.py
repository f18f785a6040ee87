"""A merge of two commits of a mirror, without a working tree."""

from __future__ import annotations

import re
import resource
from pathlib import Path

from server.git.command import Git, GitFailed
from server.git.importing import Parentage, commit_tree
from server.git.manifest import printable
from server.git.refs import commit_id
from server.kernel.errors import BranchDiverged

SECONDS = 60.0
_MEMORY_BYTES = 1024 * 1024 * 1024
_OPTIONS = ("-c", "merge.renameLimit=1000", "-c", "merge.directoryRenames=false")
"""Who pushes chooses what is merged: finding renames takes the product of both sides' files, and one of a directory would move files that
nobody has named."""
_TREE = re.compile(rb"[0-9a-f]{40}\0")


async def merge(git: Git, mirror: Path, *, theirs: str, branch: str, over: Parentage) -> str:
    """A commit with the changes of `over.parent` and of `theirs`; nothing keeps it yet. The mirror is bare, and its configuration ours: no
    attribute of a tree chooses a program. Errors: BranchDiverged for a conflict; GitFailed."""
    ours, theirs = commit_id(over.parent), commit_id(theirs)
    told = await git.run(
        *_OPTIONS, "merge-tree", "--write-tree", "-z", "--name-only", "--no-messages", ours, theirs,
        git_dir=mirror, seconds=SECONDS, accept=(0, 1), limits={resource.RLIMIT_DATA: _MEMORY_BYTES},
    )  # fmt: skip
    # 1 is a conflict, and many another failure.
    if not _TREE.match(told.stdout):
        raise GitFailed(told, told.stderr.strip() or "git merge-tree told no tree")
    tree, *conflicts = told.stdout.removesuffix(b"\0").split(b"\0")
    if told.code:
        raise BranchDiverged(branch, theirs=theirs, ours=ours, paths=[printable(path) for path in conflicts])
    return await commit_tree(git, mirror, tree.decode(), over, merged=theirs)
