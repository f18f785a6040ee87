"""A walker that was taken over, in the place where the real one runs: each wall around it is run into."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.git_server import GitServer
from support.git_world import World, open_world
from support.sandbox import require_sandbox

from server.git import isolation
from server.git.importing import Importer
from server.git.walker.protocol import Limits
from server.kernel.errors import WorkspaceFailed
from server.sandbox.bubblewrap import Sandbox

TAKEN_OVER = """
import errno, os, socket, sys
sys.path += sys.argv[3:]
from server.git.walker import walk

def attack():
    {attack}

def tree(self, root):
    try:
        told = attack()
    except MemoryError:
        told = "MEMORY"
    except OSError as error:
        told = errno.errorcode[error.errno]
    raise SystemExit("outcome " + str(told))

walk.Walk.tree = tree
"""
LIMITS = Limits(total_bytes=1024 * 1024, cpu_seconds=1)


async def outcome(world: World, monkeypatch: pytest.MonkeyPatch, attack: str) -> str:
    """What the attack came to, as the taken-over walker tells it with its last words; else how it died."""
    monkeypatch.setattr(isolation, "_BOOT", TAKEN_OVER.format(attack=attack) + "\n" + isolation._BOOT)
    base = await world.fetch()
    workspace = await world.workspace(base)
    with pytest.raises(WorkspaceFailed) as caught:
        await world.import_(workspace, base)
    return caught.value.message.rpartition(": ")[2]


@pytest.fixture(params=["sandboxed", "bare"])
async def limited(request: pytest.FixtureRequest, server: GitServer, tmp_path: Path):
    """A world with tight limits; its walker behind the sandbox, or without one."""
    async with open_world(server, tmp_path, limits=LIMITS) as world:
        if request.param == "bare":
            world.git = replace(world.git, importer=Importer(world.git.git, world.git.objects, None, LIMITS, seconds=60))
        yield world


@pytest.mark.parametrize(
    ("attack", "held"),
    [
        ("bytearray(5 << 30)", "outcome MEMORY"),
        ("[os.dup(2) for _ in range(1000)]", "outcome EMFILE"),
        ("os.pwrite(1, b'x', 1 << 30)", "outcome EFBIG"),
        ("return len(bytearray(1 << 20))", f"outcome {1 << 20}"),  # a positive control: what is within the limits succeeds
    ],
)
async def test_what_it_takes_is_limited(limited: World, monkeypatch: pytest.MonkeyPatch, attack: str, held: str) -> None:
    assert await outcome(limited, monkeypatch, attack) == held


async def test_its_time_is_limited(limited: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await outcome(limited, monkeypatch, "while True: pass") in {"exit code 137", "exit code -9"}


async def test_it_makes_no_other_process(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind the sandbox: without one, the kernel counts processes of ordinary users only."""
    require_sandbox()
    assert await outcome(world, monkeypatch, "return os.fork() or os._exit(0)") == "outcome EAGAIN"


async def test_it_is_not_started_where_its_budget_would_not_hold(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Process 1 of a namespace survives SIGPROF: loud, and at once, and not when somebody's `.gitignore` takes for ever."""
    require_sandbox()
    wrap = Sandbox.wrap

    def without_an_init(self: Sandbox, *given: Any, **named: Any) -> list[str]:
        argv = wrap(self, *given, **named)
        inner = max(position for position, word in enumerate(argv) if word == "--clearenv")
        return [*argv[:inner], "--as-pid-1", *argv[inner:]]

    base = await world.fetch()
    workspace = await world.workspace(base)
    monkeypatch.setattr(Sandbox, "wrap", without_an_init)
    with pytest.raises(WorkspaceFailed, match="process 1"):
        await world.import_(workspace, base)


async def test_its_budget_holds_though_the_server_blocks_the_signal(server: GitServer, tmp_path: Path) -> None:
    async with open_world(server, tmp_path, limits=Limits(ignore_seconds=0.01)) as world:
        base = await world.fetch()
        workspace = await world.workspace(base)
        (workspace / ".gitignore").write_text("\n".join(f"*a*a*a*a*a*b{number}" for number in range(2000)))
        for number in range(300):
            (workspace / ("a" * 240 + str(number))).touch()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPROF})
        try:
            found = await world.import_(workspace, base)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        assert [skip.reason for skip in found.skipped] == ["IGNORE_TOO_SLOW"]


@pytest.mark.parametrize("sandboxed", [True, False])
async def test_it_stands_behind_the_sandbox(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sandboxed: bool) -> None:
    """Without the sandbox the same attacks succeed: so they are attacks, and it is the sandbox that holds."""
    require_sandbox()
    if not sandboxed:
        world.git = replace(world.git, importer=Importer(world.git.git, world.git.objects, None, Limits(), seconds=60))
    secret = tmp_path / "secret"
    secret.write_text("canary")
    with monkeypatch.context() as patch:
        read = await outcome(world, patch, f"return open({str(secret)!r}).read()")
    with monkeypatch.context() as patch:
        wrote = await outcome(world, patch, "return os.open(sys.argv[1] + '/planted', os.O_CREAT | os.O_WRONLY) > 2")
    with monkeypatch.context() as patch:
        uid = await outcome(world, patch, "return os.getuid()")
    with monkeypatch.context() as patch:
        seen = await outcome(world, patch, f"return os.path.exists('/proc/{os.getpid()}/fd/0') and os.kill({os.getpid()}, 0) is None")
    port = world.server.url.rstrip("/").rpartition(":")[2]
    with monkeypatch.context() as patch:
        connected = await outcome(world, patch, f"return socket.create_connection(('127.0.0.1', {port})).fileno() > 2")
    if sandboxed:
        assert (read, wrote, connected) == ("outcome ENOENT", "outcome EROFS", "outcome ECONNREFUSED")
        assert (uid, seen) == ("outcome 10001", "outcome False")
    else:
        assert (read, wrote, connected) == ("outcome canary", "outcome True", "outcome True")
        assert (uid, seen) == (f"outcome {os.geteuid()}", "outcome True")
