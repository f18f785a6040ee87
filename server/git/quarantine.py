"""A place for objects that nobody has checked yet, beside a mirror and not in it."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

from server.git.command import Git
from server.git.loose import Loose, write_pack
from server.kernel.errors import WorkspaceFailed

_KEPT = "kept"


class Quarantine:
    """Objects from outside. Git reads the mirror through it, and writes only here, until `release`."""

    def __init__(self, git: Git, mirror: Path, directory: Path) -> None:
        self._git = git
        self._mirror = mirror
        self._objects = directory / "objects"
        self.directory = directory
        (self._objects / "pack").mkdir(parents=True)

    @property
    def environment(self) -> Mapping[str, str]:
        """For git commands that build on the new objects and on the mirror's."""
        return {
            "GIT_OBJECT_DIRECTORY": str(self._objects),
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(self._mirror / "objects"),
        }

    async def take(self, pack: IO[bytes], claimed: Iterable[bytes], *, max_bytes: int) -> None:
        """Take the walker's pack in; every claimed id must be a blob of it. Errors: GitFailed, WorkspaceFailed."""
        alone = {"GIT_OBJECT_DIRECTORY": str(self._objects)}
        await self._git.run(
            "index-pack", "--stdin", "--strict", "--fsck-objects", f"--max-input-size={max_bytes}",
            git_dir=self._mirror, stdin=pack, environment=alone,
        )  # fmt: skip
        asked, expected = await asyncio.to_thread(_questions, claimed)
        told = await self._git.run(
            "cat-file", "--batch-check=%(objectname) %(objecttype)", git_dir=self._mirror, stdin=asked, environment=alone
        )
        if told.stdout != expected:
            raise WorkspaceFailed("the walker's answer names an object that is not in its pack")

    async def add(self, objects: Iterable[Loose]) -> None:
        """Put objects of our own beside them. Errors: GitFailed, OSError."""
        with (self.directory / "own.pack").open("w+b") as pack:
            await asyncio.to_thread(write_pack, pack, objects)
            pack.seek(0)
            await self._git.run("index-pack", "--stdin", git_dir=self._mirror, stdin=pack, environment=self.environment)

    async def take_thin(self, pack: IO[bytes]) -> None:
        """Take a pack in that may build on the mirror's objects. Errors: GitFailed."""
        await self._git.run("index-pack", "--stdin", "--fix-thin", git_dir=self._mirror, stdin=pack, environment=self.environment)

    async def release(self, commit: str, parent: str, *, kept: Iterable[bytes], beside: bool = False) -> None:
        """Move what `commit` has over `parent` ("" for nothing) into the mirror, as one pack that git's own checks have passed. `beside`:
        also where `parent` is no ancestor. Errors: GitFailed.

        `kept` are blobs that the new trees have at the same paths as the parent. A new tree brings git to judge them too, and one
        line of the remote's author that it does not like would refuse the work of every turn.
        """
        await asyncio.to_thread((self.directory / _KEPT).write_bytes, b"".join(identity + b"\n" for identity in kept))
        with (self.directory / "release.pack").open("w+b") as pack:
            wanted = f"{commit}\n{f'^{parent}' if parent else ''}\n".encode()
            await self._git.run(
                "pack-objects", "--revs", "--stdout", "--quiet", "--delta-base-offset", *(("--thin", "--shallow") if beside else ()),
                git_dir=self._mirror, stdin=wanted, stdout=pack, environment=self.environment,
            )  # fmt: skip
            pack.seek(0)
            # -C, because a comma or a space in a path would end the list's name.
            await self._git.run(
                "-C", str(self.directory), "index-pack", "--stdin", "--fix-thin", f"--strict=skiplist={_KEPT}",
                git_dir=self._mirror, stdin=pack,
            )  # fmt: skip


def _questions(claimed: Iterable[bytes]) -> tuple[bytes, bytes]:
    """What to ask `cat-file --batch-check`, and what it has to say."""
    ids = sorted(claimed)
    return b"".join(identity + b"\n" for identity in ids), b"".join(identity + b" blob\n" for identity in ids)


@asynccontextmanager
async def quarantine(git: Git, mirror: Path) -> AsyncIterator[Quarantine]:
    """A quarantine for one import; removed afterwards, whatever is in it."""
    directory = Path(tempfile.mkdtemp(prefix="import-", dir=mirror))
    try:
        yield Quarantine(git, mirror, directory)
    finally:
        await asyncio.to_thread(shutil.rmtree, directory)
