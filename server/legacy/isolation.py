"""Runs the reader where its mistakes stay small: behind the sandbox, else at least in a process of its own with limits."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import server
from server.git.command import communicate, end
from server.kernel.errors import WorkspaceFailed
from server.legacy.protocol import Found, Limits, Request
from server.legacy.tar import Refused
from server.sandbox.bubblewrap import Sandbox
from server.sandbox.mount import Mount
from server.sandbox.runtime import python_mounts

_INTO = PurePosixPath("/workspace")
_BOOT = "import sys; sys.path += sys.argv[2:]; from server.legacy.reader import main; main(sys.argv[1])"
_ANSWER_BYTES = 1024 * 1024
_REASONS = frozenset({"CORRUPT", "BAD_NAME", "BAD_KIND", "BAD_HEADER", "DUPLICATE", "TOO_LARGE", "TOO_MANY", "TOO_DEEP", "BOMB"})


@dataclass(frozen=True)
class Unpacked:
    """What was taken out of an archive: the working tree, and the conversation's bytes (none for none)."""

    tree: Path
    transcript: bytes


@dataclass(frozen=True)
class Reader:
    """Reads archives. `archive` is always a file at its beginning. Errors of both: Refused for what is in the archive, WorkspaceFailed for
    what is here."""

    sandbox: Sandbox | None
    seconds: float
    limits: Limits = field(default_factory=Limits)

    async def look(self, archive: BinaryIO) -> Found:
        """What it holds. Writes nothing."""
        said = await self._run(archive, Request(self.limits))
        try:
            return Found.load(said)
        except ValueError as error:
            raise WorkspaceFailed(str(error)) from error

    async def unpack(self, archive: BinaryIO, found: Found, into: Path) -> Unpacked:
        """Take out the working tree and the conversation, into an empty directory of ours."""
        if self.sandbox is not None and os.geteuid() == 0:
            os.chown(into, self.sandbox.uid, self.sandbox.gid)
        request = Request(self.limits, str(into), repository=found.repository, transcript=found.transcript)
        await self._run(archive, request, into)
        tree = into / "tree"
        # The reader has ended, so what it left stays; what a link in its place led to, the walker would read.
        if tree.is_symlink() or not tree.is_dir():
            raise WorkspaceFailed("the reader left no tree")
        return Unpacked(tree, await asyncio.to_thread(_read, into / "transcript", self.limits.transcript_bytes))

    async def _run(self, archive: BinaryIO, request: Request, into: Path | None = None) -> dict[str, Any]:
        process = await asyncio.create_subprocess_exec(
            *self._argv(request, into),
            stdin=archive,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"LC_ALL": "C.UTF-8"},
            cwd="/",
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(self.seconds):
                ended = await communicate(process, None, _ANSWER_BYTES)
        except TimeoutError:
            raise Refused("TOO_LARGE", f"it was not read within {self.seconds:g} s") from None
        finally:
            await end(process)
        if ended.code != 0 or ended.truncated:
            last = "".join(ended.stderr.strip().splitlines()[-1:])[:500]
            raise WorkspaceFailed(f"the archive could not be read: {last or f'exit code {ended.code}'}")
        return _answer(ended.stdout)

    def _argv(self, request: Request, into: Path | None) -> Sequence[str]:
        paths = [str(Path(server.__file__).parent.parent), *(path for path in sys.path if path.endswith("site-packages"))]
        python = [sys.executable, "-I", "-S", "-B", "-X", "utf8", "-c", _BOOT]
        if self.sandbox is None:
            return [*python, request.dump(), *paths]
        mounts = [*python_mounts("server"), *([Mount(into, _INTO, writable=True)] if into else [])]
        inside = replace(request, into=str(_INTO)) if into else request
        return self.sandbox.wrap([*python, inside.dump(), *paths], mounts=mounts, env={"LC_ALL": "C.UTF-8"}, cwd="/")


def _answer(data: bytes) -> dict[str, Any]:
    try:
        said = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise WorkspaceFailed("the reader's answer is malformed") from error
    if not isinstance(said, dict):
        raise WorkspaceFailed("the reader's answer is malformed")
    if said.get("refused") in _REASONS:
        raise Refused(said["refused"], str(said.get("detail", ""))[:500])
    return said


def _read(path: Path, limit: int) -> bytes:
    """What the reader wrote, not what a link leads to."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK)) as file:
            return file.read(limit + 1)[:limit]
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise WorkspaceFailed(f"the conversation could not be read: {error.strerror}") from error
