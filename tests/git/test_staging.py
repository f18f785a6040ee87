"""Contents on their way into a mirror."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.git_server import git
from support.git_world import AT, AUTHOR, World

from server.git.mirror import sweep
from server.git.staging import content_of
from server.kernel.errors import PathInvalid
from server.kernel.ports.trees import Kind, Move, WriteStaged

MIB = 1024 * 1024


async def _pieces(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def _random(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield os.urandom(MIB)


def _peak() -> int:
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024


@pytest.mark.parametrize("pieces", [[], [b"one\n"], [bytes(3 * MIB), b"x", os.urandom(MIB)]], ids=["empty", "small", "large"])
async def test_a_blob_as_git_would_have_made_it(world: World, pieces: list[bytes]) -> None:
    base = await world.fetch()
    content = b"".join(pieces)
    async with world.git.trees.staged(world.repository, len(content), _pieces(*pieces)) as staged:
        assert b"".join(content_of(staged)) == content
        edits = [WriteStaged("new/file", staged, expected_etag="", executable=True), Move("new/file", "file")]
        for _ in range(2):
            edited = await world.git.trees.edit(world.repository, base, edits, author=AUTHOR, at=AT, message=lambda _: "Edit")
    assert not list(world.mirror.rglob("tmp_obj_*"))
    assert git(world.mirror, "fsck", "--strict", "--no-dangling") == ""
    assert (world.tmp / "file").write_bytes(content) == len(content)
    assert git(world.mirror, "rev-parse", f"{edited.commit}:file") == git(world.mirror, "hash-object", str(world.tmp / "file")) == staged.id
    entry = edited.changes[1].entry
    assert (entry.kind, entry.size, entry.etag) == (Kind.EXECUTABLE, len(content), staged.id)
    assert entry == await world.git.trees.entry(world.repository, edited.commit, "file")


async def test_memory_does_not_grow_with_the_content(world: World) -> None:
    await world.fetch()
    async with world.git.trees.staged(world.repository, MIB, _random(1)):
        Path("/proc/self/clear_refs").write_text("5")
        before = _peak()
    async with world.git.trees.staged(world.repository, 100 * MIB, _random(100)) as staged:
        assert sum(map(len, content_of(staged))) == 100 * MIB
        assert _peak() - before < 16 * MIB


async def test_what_a_killed_server_left_is_swept(world: World) -> None:
    await world.fetch()
    left = world.mirror / "objects" / "tmp_obj_0123"
    left.write_bytes(b"half")
    sweep(world.mirror)
    assert not left.exists()


async def test_what_git_judges_by_its_content_is_no_upload(world: World) -> None:
    base = await world.fetch()
    with pytest.raises(PathInvalid):
        await world.git.trees.check(world.repository, base, "sub/.gitmodules", None)
