"""Git bundles (gitformat-bundle(5), version 2), for snapshots in the object store."""

from __future__ import annotations

import asyncio
import io
import os
import tempfile
from pathlib import Path
from typing import IO

from server.git.change import change
from server.git.command import Git, GitFailed
from server.git.loose import Loose, write_pack
from server.git.manifest import is_judged
from server.git.objects import Objects
from server.git.quarantine import quarantine
from server.git.refs import SNAPSHOT, commit_id
from server.kernel.errors import SnapshotDamaged


async def write_bundle(git: Git, objects: Objects, mirror: Path, *, base: str, head: str, into: Path) -> None:
    """Write base..head to `into`, atomically. An empty `base` means the whole history. Errors: GitFailed, OSError.

    Written by hand because `git bundle create` takes its refs from the repository, where a `snapshot` could be the remote's.
    """
    header = _header(base, head)
    descriptor, name = tempfile.mkstemp(prefix=f".{into.name}-", dir=into.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w+b") as target:
            if small := await _small_change(objects, mirror, base, head):
                await asyncio.to_thread(_write, target, header, small)
            else:
                target.write(header)
                target.flush()
                # --shallow: nothing of what `base` has, also where `head` is no descendant of it.
                await git.run(
                    "pack-objects", "--revs", "--stdout", "--quiet", "--thin", "--shallow", "--delta-base-offset",
                    git_dir=mirror, stdin=f"{head}\n{f'^{base}' if base else ''}\n".encode(), stdout=target,
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


async def _small_change(objects: Objects, mirror: Path, base: str, head: str) -> list[Loose]:
    """Empty where it has to be git's: what is wrong with a mirror, git then says."""
    if not base:
        return []
    try:
        async with objects.reader(mirror) as reader:
            return await change(reader, base, head)
    except (GitFailed, TimeoutError, ValueError):
        return []


def _write(target: IO[bytes], header: bytes, objects: list[Loose]) -> None:
    pack = io.BytesIO()
    write_pack(pack, objects)
    target.write(header + pack.getvalue())
    target.flush()


def _header(base: str, head: str) -> bytes:
    needs = f"-{commit_id(base)} base\n" if base else ""
    return f"# v2 git bundle\n{needs}{commit_id(head)} {SNAPSHOT}\n\n".encode()


async def _judged_in(git: Git, mirror: Path, commit: str) -> list[bytes]:
    """Ids of a commit's files that git's fsck reads: what it has to say of those is their author's business, as it was at the import."""
    listing = (await git.run("ls-tree", "-r", "-z", "--full-tree", commit, git_dir=mirror)).stdout
    entries = (line.split(b"\t", 1) for line in listing.split(b"\0") if line)
    return [about.split()[2] for about, path in entries if is_judged(path.rpartition(b"/")[2])]
