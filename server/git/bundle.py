"""Git bundles (gitformat-bundle(5), version 2), for snapshots in the object store."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path

from server.git.command import Git, GitFailed
from server.git.manifest import is_judged
from server.git.quarantine import quarantine
from server.git.refs import SNAPSHOT, commit_id
from server.kernel.errors import SnapshotDamaged


async def write_bundle(git: Git, mirror: Path, *, base: str, head: str, into: Path) -> None:
    """Write base..head to `into`, atomically. An empty `base` means the whole history. Errors: GitFailed, OSError.

    Written by hand because `git bundle create` takes its refs from the repository, where a `snapshot` could be the remote's.
    """
    wanted = f"{commit_id(head)}\n" + (f"^{base}\n" if base else "")
    descriptor, name = tempfile.mkstemp(prefix=f".{into.name}-", dir=into.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w+b") as target:
            target.write(_header(base, head))
            target.flush()
            # --shallow: nothing of what `base` has, also where `head` is no descendant of it.
            await git.run(
                "pack-objects", "--revs", "--stdout", "--quiet", "--thin", "--shallow", "--delta-base-offset",
                git_dir=mirror, stdin=wanted.encode(), stdout=target,
            )  # fmt: skip
        await asyncio.to_thread(temporary.replace, into)
    finally:
        await asyncio.to_thread(temporary.unlink, missing_ok=True)


async def take_bundle(git: Git, mirror: Path, bundle: Path, *, base: str, head: str) -> None:
    """Bring base..head from a file that `write_bundle` should have written into the mirror, which has `base`. Nothing gets there before
    all of it was checked. Errors: SnapshotDamaged, OSError; GitFailed when `base` is not there."""
    kept = await _judged_in(git, mirror, commit_id(base)) if base else []
    try:
        async with quarantine(git, mirror) as held:
            with bundle.open("rb", buffering=0) as file:
                header = _header(base, head)
                if file.read(len(header)) != header:
                    raise SnapshotDamaged(head, "its bundle is not the one of this commit")
                await held.take_thin(file)
            await held.release(head, base, kept=kept, beside=True)
    except GitFailed as error:
        raise SnapshotDamaged(head, error.reason) from error


def _header(base: str, head: str) -> bytes:
    needs = f"-{commit_id(base)} base\n" if base else ""
    return f"# v2 git bundle\n{needs}{commit_id(head)} {SNAPSHOT}\n\n".encode()


async def _judged_in(git: Git, mirror: Path, commit: str) -> list[bytes]:
    """Ids of a commit's files that git's fsck reads: what it has to say of those is their author's business, as it was at the import."""
    listing = (await git.run("ls-tree", "-r", "-z", "--full-tree", commit, git_dir=mirror)).stdout
    entries = (line.split(b"\t", 1) for line in listing.split(b"\0") if line)
    return [about.split()[2] for about, path in entries if is_judged(path.rpartition(b"/")[2])]
