"""Runs the walker where its mistakes stay small: behind the sandbox, else at least in a process of its own with limits."""

from __future__ import annotations

import asyncio
import compileall
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import IO

import server
from server.git.command import Completed, communicate, end
from server.git.walker.protocol import Limits
from server.kernel.errors import WorkspaceFailed
from server.sandbox.bubblewrap import Sandbox
from server.sandbox.mount import Mount
from server.sandbox.runtime import python_mounts

_TARGET = PurePosixPath("/workspace")
_BOOT = "import sys; sys.path += sys.argv[3:]; from server.git.walker.main import main; main(sys.argv[1], int(sys.argv[2]))"
_IGNORE_TOO_SLOW = (-signal.SIGPROF, 128 + signal.SIGPROF)
"""How a walker ends whose `.gitignore` rules take too long: of that signal, which a sandbox tells as an exit code."""
# pygit2 does not load without some directory of certificates, and there is none inside; the walker has no network to use them on.
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "SSL_CERT_DIR": "/usr"}


def walker_argv(sandbox: Sandbox | None, workspace: Path, whole: int) -> list[str]:
    """The walker's command line. It sees the workspace read-only, Python, and this server's source. `whole` is the descriptor that ends
    when the request is whole."""
    source = Path(server.__file__).parent
    # Named, because -I and -S leave them out: the packages beside us, and those of the environment (pygit2).
    paths = [str(source.parent), *(path for path in sys.path if path.endswith("site-packages"))]
    python = [sys.executable, "-I", "-S", "-B", "-X", "utf8", "-c", _BOOT]
    if sandbox is None:
        return [*python, str(workspace), str(whole), *paths]
    mounts = [Mount(workspace, _TARGET), *python_mounts("server")]
    return sandbox.wrap([*python, str(_TARGET), str(whole), *paths], mounts=mounts, env=_ENVIRONMENT, cwd="/")


def compile_walker() -> None:
    """It cannot write there itself, and would compile its own source at every start."""
    compileall.compile_dir(Path(server.__file__).parent / "git/walker", quiet=2)


def _as_owner(sandbox: Sandbox | None, workspace: Path) -> Sandbox | None:
    """What a worker writes only its own user may read, where that is one of many, and it has not been given back yet."""
    owner = workspace.stat()
    if sandbox is None or sandbox.root is None or owner.st_uid in (0, sandbox.uid):
        return sandbox
    return replace(sandbox, uid=owner.st_uid, gid=owner.st_gid)


async def walk(
    sandbox: Sandbox | None,
    workspace: Path,
    *,
    request: IO[bytes],
    complete: Callable[[], Awaitable[object]],
    limits: Limits,
    answer: IO[bytes],
    seconds: float,
) -> None:
    """Run the walker to its end, with a request that begins with `limits`, and that `complete` makes whole while it starts; `answer` is an
    empty file. Errors: WorkspaceFailed, and those of `complete`."""
    try:
        async with asyncio.timeout(seconds):
            ended = await _run(sandbox, workspace, request, complete, answer)
            if ended.code in _IGNORE_TOO_SLOW:
                os.pwrite(request.fileno(), limits._replace(ignore_seconds=0).dump(), 0)
                answer.seek(0)
                answer.truncate()
                ended = await _run(sandbox, workspace, request, _as_it_is, answer)
    except TimeoutError:
        raise WorkspaceFailed(f"the workspace was not read within {seconds:g} s") from None
    if ended.code != 0:
        last = ended.stderr.strip().splitlines()[-1:]
        raise WorkspaceFailed(f"the workspace could not be read: {''.join(last)[:500] or f'exit code {ended.code}'}")


async def _run(
    sandbox: Sandbox | None, workspace: Path, request: IO[bytes], complete: Callable[[], Awaitable[object]], answer: IO[bytes]
) -> Completed:
    with _opened(request) as (stdin, whole, hold):
        process = await asyncio.create_subprocess_exec(
            *walker_argv(_as_owner(sandbox, workspace), workspace, whole.fileno()),
            stdin=stdin,
            stdout=answer,
            stderr=asyncio.subprocess.PIPE,
            # Without a sandbox, what a killed walker leaves goes with the quarantine.
            env={**_ENVIRONMENT, "TMPDIR": str(Path(answer.name).parent)},
            cwd="/",
            start_new_session=True,
            pass_fds=[whole.fileno()],
        )
        try:
            await complete()
            hold.close()
            return await communicate(process, None, 0)
        finally:
            await end(process)


@contextmanager
def _opened(request: IO[bytes]) -> Iterator[tuple[IO[bytes], IO[bytes], IO[bytes]]]:
    """The request again, as reading must not move the place at which it is written to; and both ends of a pipe."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as whole, os.fdopen(writing, "wb") as hold, Path(request.name).open("rb") as stdin:
        yield stdin, whole, hold


async def _as_it_is() -> None:
    """For a request that is whole."""
