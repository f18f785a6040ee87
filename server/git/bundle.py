"""Git bundles (gitformat-bundle(5), version 2), for snapshots in the object store."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

from server.git.command import Git
from server.git.refs import SNAPSHOT, commit_id


async def write_bundle(git: Git, mirror: Path, *, base: str, head: str, into: Path) -> None:
    """Write base..head to `into`, atomically. An empty `base` means the whole history. Errors: GitFailed, OSError.

    Written by hand because `git bundle create` takes its refs from the repository, where a `snapshot` could be the remote's.
    """
    needs = f"-{commit_id(base)} base\n" if base else ""
    wanted = f"{commit_id(head)}\n" + (f"^{base}\n" if base else "")
    descriptor, name = tempfile.mkstemp(prefix=f".{into.name}-", dir=into.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w+b") as target:
            target.write(f"# v2 git bundle\n{needs}{head} {SNAPSHOT}\n\n".encode())
            target.flush()
            await git.run(
                "pack-objects", "--revs", "--stdout", "--quiet", "--thin", "--delta-base-offset",
                git_dir=mirror, stdin=wanted.encode(), stdout=target,
            )  # fmt: skip
        await asyncio.to_thread(temporary.replace, into)
    finally:
        await asyncio.to_thread(temporary.unlink, missing_ok=True)
