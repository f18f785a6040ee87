"""A live workspace: what is hostile in there is neither followed nor waited for, and what is done reaches the agent."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.requirements import require

from server.git import beneath
from server.git.live import OpenedFiles
from server.git.loose import loose
from server.kernel.errors import (
    FileChanged,
    FileExists,
    FileUnusable,
    InvalidField,
    KernelError,
    NotADirectory,
    NotAFile,
    PathInvalid,
    PathNotFound,
)
from server.kernel.ports.trees import Change, Delete, Kind, MakeDirectory, Move, SetMode, Write

WHOLE = {"offset": 0, "length": None}
AGENT = 10001 if os.geteuid() == 0 else os.geteuid()
ATTACKS = 10_000
SOME_ATTACKS = 2_000

# Swaps the directory `d` for a link to the host's, the file `f` for a link to the secret, and back, as fast as it can.
ATTACKER = """
import ctypes, os, sys
tree, host = sys.argv[1:]
os.chdir(tree)
os.symlink(host, "link"); os.symlink(host + "/secret", "file-link")
libc, AT_FDCWD, RENAME_EXCHANGE = ctypes.CDLL(None), -100, 2
print("ready", flush=True)
while True:
    for ours, link in (("d", "link"), ("f", "file-link")):
        libc.renameat2(AT_FDCWD, ours.encode(), AT_FDCWD, link.encode(), RENAME_EXCHANGE)
"""


@pytest.fixture(params=["openat2", "one name at a time"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How paths are opened."""
    monkeypatch.setattr(beneath._Kernel, "has_openat2", request.param == "openat2")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """The agent's own tree."""
    tree = tmp_path / "workspace"
    for directory in ("d/e", ".git", "sub/.git"):
        (tree / directory).mkdir(parents=True)
    for path, content in {"f": "ours", "d/secret": "ours", "d/e/x": "deep", ".git/config": "git", "run.sh": "#!/bin/sh"}.items():
        (tree / path).write_text(content)
    (tree / "run.sh").chmod(0o755)
    (tree / "out").symlink_to("/etc")
    (tree / "passwd").symlink_to("/etc/passwd")
    os.mkfifo(tree / "pipe")
    for folder, folders, files in os.walk(tree):
        for name in ["", *folders, *files]:
            os.chown(Path(folder, name), AGENT, AGENT, follow_symlinks=False)
    return tree


@pytest.fixture
def files() -> OpenedFiles:
    return OpenedFiles()


def _open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def _all(chunks: AsyncGenerator[bytes, None]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


async def _read(files: OpenedFiles, workspace: Path, path: str) -> bytes:
    return await _all((await files.read(workspace, path, **WHOLE)).chunks)


@pytest.mark.usefixtures("way")
async def test_what_an_agent_has_is_seen_without_following_it(files: OpenedFiles, workspace: Path) -> None:
    shown, after = [], ""
    while True:
        page = await files.listing(workspace, "", after=after, limit=2)
        shown += page.entries
        if not (after := page.next_path):
            break
    assert [(entry.path, entry.kind) for entry in shown] == [
        ("d", Kind.DIRECTORY), ("f", Kind.FILE), ("out", Kind.LINK), ("passwd", Kind.LINK), ("run.sh", Kind.EXECUTABLE),
        ("sub", Kind.DIRECTORY),
    ]  # fmt: skip
    assert (await files.listing(workspace, "sub", after="", limit=9)).entries == ()
    assert await _read(files, workspace, "passwd") == b"/etc/passwd"
    assert await _read(files, workspace, "d/e/x") == b"deep"
    assert await _all((await files.read(workspace, "f", offset=1, length=2)).chunks) == b"ur"
    for path, error in {
        "out/passwd": NotADirectory, "pipe": NotAFile, "d": NotAFile, "": NotAFile, ".git/config": PathInvalid, "sub/.git": PathInvalid,
        "../secret": PathInvalid, "/etc/passwd": PathInvalid, "nothing": PathNotFound, "f/x": NotADirectory,
    }.items():  # fmt: skip
        with pytest.raises(error):
            await files.read(workspace, path, **WHOLE)
    with pytest.raises(NotADirectory):
        await files.listing(workspace, "out", after="", limit=9)


@pytest.mark.usefixtures("way")
async def test_edits_are_the_agents_own_and_whole(files: OpenedFiles, workspace: Path) -> None:
    made = await files.edit(workspace, Write("new/deep/file", b"1"))
    assert made is not None
    assert (made.operation, made.entry) == ("ADDED", (await files.read(workspace, "new/deep/file", **WHOLE)).entry)
    for path in ("new", "new/deep", "new/deep/file"):
        status = (workspace / path).stat()
        assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (AGENT, 0o644 if path.endswith("file") else 0o755)
    await files.edit(workspace, Write("run.sh", b"2"))
    assert stat.S_IMODE((workspace / "run.sh").stat().st_mode) == 0o755
    made = await files.edit(workspace, SetMode("run.sh", executable=False))
    assert made == Change("run.sh", "MODIFIED", entry=(await files.read(workspace, "run.sh", **WHOLE)).entry)
    status = (workspace / "run.sh").stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode), (workspace / "run.sh").read_text()) == (AGENT, 0o644, "2")
    assert await files.edit(workspace, SetMode("run.sh", executable=False)) is None
    moved = await files.edit(workspace, Move("d", "elsewhere/d"))
    assert moved is not None
    assert (workspace / "elsewhere/d/e/x").read_text() == "deep"
    assert await files.edit(workspace, MakeDirectory("elsewhere/d")) is None
    assert await files.edit(workspace, MakeDirectory("empty")) is not None
    await files.edit(workspace, Delete("elsewhere", recursive=True))
    await files.edit(workspace, Delete("passwd"))
    assert sorted(path.name for path in workspace.iterdir()) == [".git", "empty", "f", "new", "out", "pipe", "run.sh", "sub"]
    for edit, error in (
        (Write("out/x", b""), NotADirectory), (Write("out", b""), NotAFile), (Write("pipe", b""), NotAFile), (Write("sub", b""), NotAFile),
        (Write(".git/config", b""), PathInvalid), (Delete("sub/.git", recursive=True), PathInvalid), (Move("f", ".git/x"), PathInvalid),
        (Delete("sub"), NotAFile), (Delete("nothing"), PathNotFound), (Move("nothing", "x"), PathNotFound),
        (Move("sub", "sub/x"), PathInvalid), (SetMode("nothing", executable=True), InvalidField),
        (SetMode("no/thing", executable=True), InvalidField), (SetMode("pipe", executable=True), NotAFile),
        (SetMode("out", executable=True), NotAFile), (SetMode("sub", executable=True), NotAFile),
        (Move("f", "run.sh"), FileExists), (Move("f", "out/x"), NotADirectory), (MakeDirectory("f"), NotADirectory),
    ):  # fmt: skip
        with pytest.raises(error):
            await files.edit(workspace, edit)
    assert not list(workspace.rglob(".treadle-*"))


async def test_an_etag_decides_also_one_of_a_commit(files: OpenedFiles, workspace: Path) -> None:
    entry = (await files.read(workspace, "f", **WHOLE)).entry
    with pytest.raises(FileChanged):
        await files.edit(workspace, Write("f", b"2", expected_etag=""))
    first = await files.edit(workspace, Write("f", b"2", expected_etag=entry.etag))
    assert first is not None
    with pytest.raises(FileChanged) as told:
        await files.edit(workspace, Write("f", b"3", expected_etag=entry.etag))
    assert first.entry is not None
    assert told.value.metadata["etag"] == first.entry.etag
    await files.edit(workspace, Write("f", b"3", expected_etag=loose("blob", b"2").id))
    with pytest.raises(FileChanged):
        await files.edit(workspace, Delete("f", expected_etag=loose("blob", b"2").id))
    await files.edit(workspace, Write("g", b"", expected_etag=""))


@contextmanager
def _attacker(workspace: Path, host: Path) -> Iterator[None]:
    program = subprocess.Popen([sys.executable, "-c", ATTACKER, str(workspace), str(host)], stdout=subprocess.PIPE)
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == b"ready\n"
        yield
        assert program.poll() is None
    finally:
        program.send_signal(signal.SIGKILL)
        program.communicate()


@pytest.mark.usefixtures("way")
async def test_directories_that_turn_into_links_and_back_lead_nowhere(files: OpenedFiles, workspace: Path, tmp_path: Path) -> None:
    host = tmp_path / "host"
    host.mkdir()
    (host / "secret").write_text("the host's")
    before = sorted((path.name, path.stat().st_mtime_ns) for path in host.iterdir())
    seen: dict[str, int] = {}

    async def attempt(number: int) -> None:
        try:
            if number % 4 == 0:
                await files.edit(workspace, Write("d/secret", b"ours"))
            elif number % 4 == 1:
                await files.edit(workspace, Write("d/e/new", b"ours"))
            else:
                path = "d/secret" if number % 4 == 2 else "f"
                content = await _read(files, workspace, path)
                # A link is read as a link: where it leads to is no secret.
                assert content in {b"ours", str(host / "secret").encode()}, content
            how = "done"
        except KernelError as error:
            how = type(error).__name__
        seen[how] = seen.get(how, 0) + 1

    attacks = ATTACKS if beneath._Kernel.has_openat2 else SOME_ATTACKS
    with _attacker(workspace, host):
        for start in range(0, attacks, 20):
            await asyncio.gather(*(attempt(start + number) for number in range(20)))
    print(seen)
    assert sum(seen.values()) == attacks
    assert seen["done"] > 100
    assert seen.keys() > {"done"}  # it was in our way
    assert sorted((path.name, path.stat().st_mtime_ns) for path in host.iterdir()) == before
    assert (host / "secret").read_text() == "the host's"


async def test_a_file_that_shrinks_or_is_not_read_ends_in_order(files: OpenedFiles, workspace: Path) -> None:
    (workspace / "f").write_bytes(bytes(600_000))
    content = await files.read(workspace, "f", **WHOLE)
    await anext(content.chunks)
    os.truncate(workspace / "f", 10)
    assert await _all(content.chunks) == b""
    opened = _open_files()
    for _ in range(50):
        content = await files.read(workspace, "run.sh", **WHOLE)
        await content.chunks.aclose()
        del content
    assert _open_files() < opened + 10


async def test_an_edit_that_a_server_of_a_lesser_user_may_not_make_says_why() -> None:
    require(os.geteuid() == 0, "root", "run the tests as root")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        workspace = Path(folder)
        workspace.chmod(0o755)
        (workspace / "a.txt").write_text("a")
        os.seteuid(10_000)
        try:
            for edit in (Write("b.txt", b"x"), Write("a.txt", b"x"), Delete("a.txt")):
                with pytest.raises(FileUnusable, match=r"not root.*when the turn has ended"):
                    await OpenedFiles().edit(workspace, edit)
        finally:
            os.seteuid(0)
