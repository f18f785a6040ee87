"""A real `treadle up` in a process of its own, and the other commands against it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.git_server import git
from support.postgres import in_memory, open_directory
from support.tree import entries

# Started by a shell's `&`, a test run has SIGINT ignored, and so would all that it starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

LIMIT_SECONDS = 60
_ANY_PORTS = {
    "TREADLE_METRICS_LISTEN": "127.0.0.1:0",
    "TREADLE_GATEWAY_LISTEN": "127.0.0.1:0",
    "TREADLE_GATEWAY_METRICS_LISTEN": "127.0.0.1:0",
    "TREADLE_SAMPLE_PORT": "0",
}
GATED = """\
{"write": "first.txt", "content": "first\\n"}
{"run": "while [ ! -e go ]; do sleep 0.02; done; rm go"}
{"write": "second.txt", "content": "second\\n"}
"""


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


class Command:
    """A running `treadle` command, read as it writes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.out = ""
        self.err = ""
        self._changed = asyncio.Condition()
        self._readers = [
            asyncio.create_task(self._read("out", process.stdout)),
            asyncio.create_task(self._read("err", process.stderr)),
        ]

    async def says(self, text: str, *, within: str = "out") -> None:
        """Wait until it has written `text`."""
        async with asyncio.timeout(LIMIT_SECONDS), self._changed:
            await self._changed.wait_for(lambda: text in getattr(self, within) or all(reader.done() for reader in self._readers))
        assert text in getattr(self, within), f"{text!r} was not said:\n{self.out}\n{self.err}"

    async def ended(self) -> Ended:
        async with asyncio.timeout(LIMIT_SECONDS):
            await asyncio.gather(*self._readers)
            return Ended(await self.process.wait(), self.out, self.err)

    async def stop(self, number: signal.Signals = signal.SIGINT) -> Ended:
        self.process.send_signal(number)
        return await self.ended()

    async def _read(self, name: str, stream: asyncio.StreamReader | None) -> None:
        assert stream is not None
        while chunk := await stream.read(65536):
            async with self._changed:
                setattr(self, name, getattr(self, name) + chunk.decode())
                self._changed.notify_all()
        async with self._changed:
            self._changed.notify_all()


class Home:
    """A data directory, and commands that use it."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.first_words = ""
        self.ports = _ANY_PORTS

    @property
    def sample_url(self) -> str:
        return (self.data_dir / "sample" / "url").read_text().strip()

    @property
    def sample(self) -> Path:
        return self.data_dir / "sample" / "repositories" / "sample.git"

    @property
    def environment(self) -> dict[str, str]:
        """Without the settings of whoever runs the tests."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TREADLE_")}
        return inherited | {"TREADLE_DATA_DIR": str(self.data_dir), **self.ports}

    @asynccontextmanager
    async def started(self, *arguments: str, **environment: str) -> AsyncIterator[Command]:
        """A command that is killed at the end if it still runs."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "server.cli",
            *arguments,
            env=self.environment | environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        command = Command(process)
        try:
            yield command
        finally:
            if process.returncode is None:
                process.kill()
                await command.ended()

    @asynccontextmanager
    async def up(self, *arguments: str, listen: str = "127.0.0.1:0", **environment: str) -> AsyncIterator[Command]:
        """A `treadle up` that serves; stopped by Ctrl-C at the end."""
        async with self.started("up", "--listen", listen, *arguments, **environment) as command:
            try:
                await command.says("Try, in another terminal")
                await command.says("doctor")
                yield command
            finally:
                if command.process.returncode is None:
                    await command.stop()

    async def run(self, *arguments: str, **environment: str) -> Ended:
        async with self.started(*arguments, **environment) as command:
            return await command.ended()

    def add_recording(self, name: str, steps: str) -> tuple[str, ...]:
        """A branch of the sample repository that holds a recording; the options of `run` that play it."""
        blob = git(self.sample, "hash-object", "-w", "--stdin", stdin=steps.encode())
        tree = git(self.sample, "mktree", stdin=f"100644 blob {blob}\t{name}.jsonl\n".encode())
        git(self.sample, "update-ref", f"refs/heads/{name}", git(self.sample, "commit-tree", "-m", name, tree))
        return ("--repo", self.sample_url, "--base", name, "--provider", "replay", "--model", f"{name}.jsonl")

    def add_gated_recording(self) -> tuple[str, ...]:
        """A recording that waits for `open_gate`."""
        return self.add_recording("gated", GATED)

    def open_gate(self) -> None:
        for workspace in self.data_dir.glob("workers/*/workspace"):
            (workspace / "go").touch()

    def processes(self) -> list[str]:
        """Command lines of all processes that have to do with this directory; the commands that the test started are not among them."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                line, cwd = (entry / "cmdline").read_bytes(), str((entry / "cwd").readlink())
            except OSError:
                continue
            if str(self.data_dir) in line.decode(errors="replace") or cwd.startswith(str(self.data_dir)):
                found.append(line.decode(errors="replace").replace("\0", " "))
        return found

    def sockets(self) -> list[Path]:
        return [path for path, status in entries(self.data_dir) if stat.S_ISSOCK(status.st_mode)]

    def pushed(self, branch: str) -> list[str]:
        """The files on a branch of the sample repository."""
        return git(self.sample, "ls-tree", "-r", "--name-only", branch).splitlines()


def session_in(output: str) -> str:
    found = re.search(r"session ([0-9a-f-]{36})", output)
    assert found, output
    return found[1]


def branch_in(output: str) -> str:
    found = re.search(r"branch +(treadle/\S+)", output)
    assert found, output
    return found[1]


@pytest.fixture(scope="session")
async def first_start() -> AsyncIterator[Home]:
    """A data directory after its first start, and what that said in `first_words`; stopped. Others begin as copies of it."""
    with open_directory(within=in_memory()) as directory:
        home = Home(directory / "data")
        async with home.up() as up:
            pass
        home.first_words = up.out
        yield home


@pytest.fixture
def home(first_start: Home) -> Iterator[Home]:
    """A data directory that was used before; nothing runs."""
    with open_directory(within=in_memory()) as directory:
        yield _copy(first_start, directory)


@pytest.fixture
def unused() -> Iterator[Home]:
    """A data directory that does not exist yet."""
    with open_directory(within=in_memory()) as directory:
        yield Home(directory / "data")


@pytest.fixture(scope="session")
async def shared(first_start: Home) -> AsyncIterator[Home]:
    """One running stack for all tests that leave it as it is."""
    with open_directory(within=in_memory()) as directory:
        home = _copy(first_start, directory)
        async with home.up():
            yield home


def _copy(home: Home, directory: Path) -> Home:
    # Owners too: parts belong to the user that runs Postgres.
    subprocess.run(["cp", "-a", str(home.data_dir), str(directory / "data")], check=True, timeout=LIMIT_SECONDS)
    return Home(directory / "data")


@pytest.fixture(scope="session")
def find_session() -> Callable[[str], str]:
    return session_in


@pytest.fixture(scope="session")
def find_branch() -> Callable[[str], str]:
    return branch_in
