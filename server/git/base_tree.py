"""What a commit's tree holds: the import compares with it, so it has to fit.

Of a large tree it is kept in the mirror when its workspace is built: else each import would wait for git to list it.
"""

from __future__ import annotations

import asyncio
import os
import resource
import secrets
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO

import structlog

from server.git.command import Git, GitFailed
from server.git.mirror import to_its_end
from server.git.walker.protocol import dump_base, is_whole
from server.kernel.errors import WorkspaceFailed

LISTING_BYTES = 64 * 1024 * 1024
"""Some 500,000 files with paths of 70 bytes."""
_LARGE_BYTES = 512 * 1024
"""Of git's index: some 5,000 files, which git lists in the time that the walker takes to start."""
_KEPT_BYTES = 128 * 1024 * 1024
"""Of a mirror: a dozen trees of 100,000 files."""
_FOLDER = "bases"

log = structlog.get_logger()


async def write_base(git: Git, mirror: Path, tree: str, into: IO[bytes]) -> None:
    """Append a tree to a file, as a BaseTree takes it. Errors: GitFailed, OSError, WorkspaceFailed when the list of it is longer than
    LISTING_BYTES."""
    base = await asyncio.to_thread(_kept, mirror, tree) or await _made(git, mirror, tree)
    await asyncio.to_thread(write_all, into, base)


def write_all(file: IO[bytes], content: bytes) -> None:
    """To a file without a buffer, which may take less at once than it is given. Errors: OSError."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


async def keep_base(git: Git, mirror: Path, commit: str, index: Path) -> None:
    """So that imports of what was checked out find it, if it is large: `index` is git's. Errors: GitFailed, OSError, WorkspaceFailed: it is
    found out at checkout, and not when the work is done, that a tree has too many files."""
    size = (await asyncio.to_thread(index.stat)).st_size
    if size > LISTING_BYTES:  # an entry of it is longer than its line of the list
        raise WorkspaceFailed(_too_large())
    if size < _LARGE_BYTES:
        return
    tree = (await git.run("rev-parse", "--verify", "--end-of-options", f"{commit}^{{tree}}", git_dir=mirror)).text
    if await asyncio.to_thread(_kept, mirror, tree) is None:
        base = await _made(git, mirror, tree)
        await to_its_end(lambda: _keep(mirror / _FOLDER, tree, base))


def forget_bases(mirror: Path) -> None:
    """Keep none any more: they name files, perhaps of sessions that are gone. Blocks. Errors: OSError."""
    if (mirror / _FOLDER).exists():
        shutil.rmtree(mirror / _FOLDER)


async def _made(git: Git, mirror: Path, tree: str) -> bytes:
    with tempfile.TemporaryFile(dir=mirror) as listed:
        try:
            await git.run(
                "ls-tree", "-r", "-z", "-l", "--full-tree", tree,
                git_dir=mirror, stdout=listed, limits={resource.RLIMIT_FSIZE: LISTING_BYTES},
            )  # fmt: skip
        except GitFailed:
            if listed.seek(0, os.SEEK_END) < LISTING_BYTES:
                raise
        # git is held to the limit from its first moments on, and not before.
        if listed.seek(0, os.SEEK_END) >= LISTING_BYTES:
            raise WorkspaceFailed(_too_large())
        listed.seek(0)
        return await asyncio.to_thread(lambda: dump_base(listed.read()))


def _kept(mirror: Path, tree: str) -> bytes | None:
    """None also where it cannot be read, or is not whole: git can always be asked."""
    file = mirror / _FOLDER / tree
    try:
        content = file.read_bytes()
        os.utime(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("base.not_read", tree=tree, error=str(error))
        return None
    if not is_whole(content):
        log.warning("base.not_read", tree=tree, error="it is damaged, or of another version")
        return None
    return content


def _keep(folder: Path, tree: str, content: bytes) -> None:
    """Whole, or not at all: an import can do without. Those stay that were used last, and no more than is worth their room."""
    draft = folder / f".{secrets.token_hex(8)}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(folder / tree)
        room = _KEPT_BYTES
        for kept in sorted(folder.iterdir(), key=_used, reverse=True):
            room -= kept.stat().st_size
            if room < 0:
                kept.unlink(missing_ok=True)
    except OSError as error:
        log.warning("base.not_kept", tree=tree, error=str(error))
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def _used(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except FileNotFoundError:  # another one has tidied, too
        return 0


def _too_large() -> str:
    return f"the repository has too many files: their names take more than {LISTING_BYTES // 1024**2} MiB"
