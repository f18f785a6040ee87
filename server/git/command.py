"""The one place that runs git on trusted repositories (zone R).

GitPython is not used to start processes: it copies the server's whole environment into each of them, and that environment holds
settings, keys and whatever `GIT_*` an operator's shell had. Here a child gets what is listed below and nothing else.
"""

from __future__ import annotations

import asyncio
import os
import re
import resource
import shutil
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

OUTPUT_LIMIT = 256 * 1024 * 1024
STDERR_LIMIT = 64 * 1024
CHUNK = 256 * 1024
_GRACE_SECONDS = 2.0
_KILL_SECONDS = 10.0

HELD_LOCKS: ContextVar[tuple[int, ...]] = ContextVar("held locks", default=())
"""Descriptors of the locks under which the current task runs git: its children keep them, so that a git that outlives a killed server
still holds its mirror's lock."""

PINNING_VERSION = (2, 37)
"""The first Git that connects to the addresses that it is given (http.curloptResolve); an older one ignores the setting in silence."""

_NEEDS = (
    ((2, 36), "a session's files cannot be read or edited without an agent"),  # cat-file --batch-command
    (PINNING_VERSION, "repositories on public hosts cannot be used"),
    ((2, 38), "a session's unpushed commits are not merged with what others push"),  # merge-tree --write-tree
)

_ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/nonexistent",
    "XDG_CONFIG_HOME": "/nonexistent",
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_SYSTEM": os.devnull,
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "/bin/true",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_LFS_SKIP_SMUDGE": "1",
    "GIT_ALLOW_PROTOCOL": "none",
}

_CONFIGURATION = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "core.protectHFS": "true",
    "core.protectNTFS": "true",
    "core.alternateRefsCommand": "/bin/true",
    # Larger blobs are streamed, which bounds what a compressed bomb can make git allocate.
    "core.bigFileThreshold": "16m",
    "credential.helper": "",
    "http.followRedirects": "false",
    "gc.auto": "0",
    "maintenance.auto": "false",
    # A git that nobody supervises any more must not hang on a dead connection for ever.
    "http.lowSpeedLimit": "1",
    "http.lowSpeedTime": "300",
    "submodule.recurse": "false",
    "fetch.recurseSubmodules": "false",
    "pack.threads": "1",
}


@dataclass(frozen=True)
class Completed:
    """What git wrote. `truncated` means that it was stopped at `max_output` bytes."""

    code: int
    stdout: bytes
    stderr: str
    truncated: bool = False

    @property
    def text(self) -> str:
        """The output as text, without surrounding white space."""
        return self.stdout.decode("utf-8", "replace").strip()


class GitFailed(Exception):
    """Git ended with an error; `reason` is what it said, in one line, with secrets blanked out."""

    def __init__(self, completed: Completed, reason: str) -> None:
        super().__init__(reason)
        self.completed = completed
        self.reason = reason

    @classmethod
    def of(cls, reason: str) -> GitFailed:
        """Of a git that has not ended, and so has no exit code."""
        return GitFailed(Completed(-1, b"", reason), reason)


class GitTimeout(GitFailed):
    """Git did not end within its limit and was killed with everything that it had started."""

    def __init__(self, seconds: float) -> None:
        super().__init__(Completed(-signal.SIGKILL, b"", ""), f"no answer within {seconds:g} s")


@dataclass(frozen=True)
class Access:
    """What a command needs to reach one remote: the protocol, a header with credentials, addresses that were checked."""

    protocol: str
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    configuration: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = field(default=(), repr=False)


_LOCAL = Access(protocol="none")


class Git:
    """Runs git with a clean environment, a bounded time and a bounded output; never blocks the event loop."""

    def __init__(self, *, timeout_seconds: float, program: str | None = None) -> None:
        self._program = program or shutil.which("git") or "/usr/bin/git"
        self._timeout = timeout_seconds
        self._version: tuple[int, ...] = ()

    async def version(self) -> tuple[int, ...]:
        """Of the program. Errors: GitFailed, OSError when there is none."""
        if not self._version:
            self._version = parse_version((await self.run("--version")).text)
        return self._version

    async def run(
        self,
        *arguments: str,
        git_dir: Path | None = None,
        stdin: bytes | IO[bytes] = b"",
        stdout: IO[bytes] | None = None,
        environment: Mapping[str, str] | None = None,
        access: Access = _LOCAL,
        seconds: float | None = None,
        max_output: int = OUTPUT_LIMIT,
        accept: tuple[int, ...] = (0,),
        limits: Mapping[int, int] | None = None,
    ) -> Completed:
        """Run `git <arguments>` to its end, within `limits` (as for setrlimit(2)).

        `stdout` sends the output to a file. More output than `max_output` stops git and is no error. Errors: GitTimeout, GitFailed
        when the exit code is not in `accept`.
        """
        limit = self._timeout if seconds is None else seconds
        process = await self.start(
            *arguments,
            git_dir=git_dir,
            stdin=asyncio.subprocess.PIPE if isinstance(stdin, bytes) else stdin,
            stdout=asyncio.subprocess.PIPE if stdout is None else stdout,
            environment=environment,
            access=access,
        )
        try:
            for what, most in (limits or {}).items():
                _restrain(process, what, most)
            async with asyncio.timeout(limit):
                completed = await communicate(process, stdin if isinstance(stdin, bytes) else None, max_output, access.secrets)
        except TimeoutError:
            raise GitTimeout(limit) from None
        finally:
            await end(process)
        if completed.code not in accept and not completed.truncated:
            raise GitFailed(completed, _reason(completed))
        return completed

    async def stream(self, *arguments: str, git_dir: Path, environment: Mapping[str, str] | None = None) -> AsyncGenerator[bytes, None]:
        """What `git <arguments>` writes, piece by piece, as fast as it is taken. Errors: GitFailed; GitTimeout when it writes nothing
        for as long as git may take."""
        process = await self.start(*arguments, git_dir=git_dir, stdin=asyncio.subprocess.DEVNULL, environment=environment)
        assert process.stdout is not None  # noqa: S101 - it was asked for as a pipe
        errors = asyncio.create_task(_read(process, process.stderr, STDERR_LIMIT, stop=False))
        try:
            while True:
                async with asyncio.timeout(self._timeout):
                    chunk = await process.stdout.read(CHUNK)
                if not chunk:
                    break
                yield chunk
            code, said = await process.wait(), (await errors)[0]
        except TimeoutError:
            raise GitTimeout(self._timeout) from None
        finally:
            errors.cancel()
            try:
                await asyncio.wait({errors})  # one at a time reads a pipe, and `end` does
            finally:
                await end(process)
        if code:
            completed = Completed(code, b"", said.decode("utf-8", "replace"))
            raise GitFailed(completed, _reason(completed))

    @asynccontextmanager
    async def deadline(self) -> AsyncIterator[None]:
        """As long as git may take, for whoever reads a stream as fast as it comes. Errors: GitTimeout."""
        limit = asyncio.timeout(self._timeout)
        try:
            async with limit:
                yield
        except TimeoutError:
            if limit.expired():
                raise GitTimeout(self._timeout) from None
            raise

    async def start(
        self,
        *arguments: str,
        git_dir: Path | None = None,
        stdin: int | IO[bytes] = asyncio.subprocess.PIPE,
        stdout: int | IO[bytes] = asyncio.subprocess.PIPE,
        stderr: int = asyncio.subprocess.PIPE,
        environment: Mapping[str, str] | None = None,
        access: Access = _LOCAL,
    ) -> asyncio.subprocess.Process:
        """Start `git <arguments>`. Whoever calls bounds it, and sees to its end (`end`)."""
        return await asyncio.create_subprocess_exec(
            self._program,
            *self._options(git_dir, access),
            *arguments,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env={**_ENVIRONMENT, "GIT_ALLOW_PROTOCOL": access.protocol, **access.environment, **(environment or {})},
            cwd="/",
            start_new_session=True,
            pass_fds=HELD_LOCKS.get(),
        )

    def _options(self, git_dir: Path | None, access: Access) -> list[str]:
        options = [] if git_dir is None else [f"--git-dir={git_dir}"]
        for key, value in {**_CONFIGURATION, **access.configuration}.items():
            options += ["-c", f"{key}={value}"]
        return options


def lacking(version: tuple[int, ...]) -> list[str]:
    """What a Git of this version cannot do here."""
    return [f"{what} (Git {needed[0]}.{needed[1]})" for needed, what in _NEEDS if version < needed]


def parse_version(told: str) -> tuple[int, ...]:
    """(2, 39) of `git version 2.39.5 (Apple Git-154)`; (0,) of anything else."""
    found = re.search(r"git version (\d+)\.(\d+)", told)
    return (int(found[1]), int(found[2])) if found else (0,)


async def communicate(
    process: asyncio.subprocess.Process, stdin: bytes | None, max_output: int, secrets: tuple[str, ...] = ()
) -> Completed:
    """Feed a process, read what it writes (never more than the limits into memory), and wait for its end."""
    async with asyncio.TaskGroup() as tasks:
        if stdin is not None:
            tasks.create_task(_feed(process, stdin))
        output = tasks.create_task(_read(process, process.stdout, max_output, stop=True))
        errors = tasks.create_task(_read(process, process.stderr, STDERR_LIMIT, stop=False))
    code = await process.wait()
    stdout, truncated = output.result()
    stderr = errors.result()[0].decode("utf-8", "replace")
    for secret in secrets:
        stderr = stderr.replace(secret, "***")
    return Completed(code, stdout, stderr, truncated)


async def _feed(process: asyncio.subprocess.Process, data: bytes) -> None:
    assert process.stdin is not None  # noqa: S101 - it was asked for as a pipe
    try:
        if data:
            process.stdin.write(data)
            await process.stdin.drain()
    except (BrokenPipeError, ConnectionResetError):
        return  # git ended without reading everything; its exit code tells why
    finally:
        process.stdin.close()


async def _read(process: asyncio.subprocess.Process, stream: asyncio.StreamReader | None, limit: int, *, stop: bool) -> tuple[bytes, bool]:
    """Up to `limit` bytes; what is more is thrown away, or ends the process when `stop`."""
    kept = bytearray()
    truncated = False
    while stream is not None and (chunk := await stream.read(CHUNK)):
        kept += chunk[: limit - len(kept)]
        if len(chunk) > 0 and len(kept) >= limit and not truncated:
            truncated = True
            if stop:
                _signal(process, signal.SIGKILL)  # it only reads
    return bytes(kept), truncated


def _restrain(process: asyncio.subprocess.Process, what: int, most: int) -> None:
    """After the start, for what runs between a fork and a program's start may be no Python (and asyncio has none there)."""
    with suppress(ProcessLookupError):
        resource.prlimit(process.pid, what, (most, most))


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


async def end(process: asyncio.subprocess.Process) -> None:
    """End a process that still runs, with its group, and close its pipes. For `finally`: also after a cancel, and bounded.

    First with SIGTERM: git then removes its lock files. One that was killed leaves them, and they stop its successors.
    """
    if process.returncode is not None:
        return
    try:
        _signal(process, signal.SIGTERM)
        async with asyncio.timeout(_GRACE_SECONDS):
            await _drained(process)
    except TimeoutError:
        pass  # it did not hear
    finally:
        if process.returncode is None:
            _signal(process, signal.SIGKILL)
    async with asyncio.timeout(_KILL_SECONDS):
        await _drained(process)


async def _drained(process: asyncio.subprocess.Process) -> None:
    for stream in (process.stdout, process.stderr):
        while stream is not None and await stream.read(CHUNK):
            continue
    await process.wait()


def _reason(completed: Completed) -> str:
    """The lines that say what went wrong, in one."""
    lines = [line.strip() for line in completed.stderr.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("fatal:", "error:", "remote:"))] or lines[-3:]
    told = "; ".join(line.removeprefix("fatal: ").removeprefix("error: ") for line in telling)
    return told[:2000] or f"git ended with code {completed.code}"
