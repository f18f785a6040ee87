"""What the object store has of a commit, brought back into a mirror that has lost it, or damaged and refused."""

from __future__ import annotations

import random
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from support.git_server import GitServer, git
from support.git_world import SESSION, World

from server.config import Settings
from server.kernel.errors import SnapshotDamaged, WorkspaceFailed
from server.kernel.ports.object_store import StoredObject
from server.kernel.uploads import store_bundle
from server.storage.filesystem import open_filesystem


async def committed(world: World, base: str, name: str, content: bytes = b"new\n") -> str:
    """A commit with one more file, as a turn would make it."""
    workspace = await world.workspace(base)
    (workspace / name).write_bytes(content)
    made = (await world.import_(workspace, base)).commit
    assert made
    return made


async def bundled(world: World, base: str, head: str) -> Path:
    into = world.tmp / f"{head[:8]}.bundle"
    await world.git.bundle(world.repository, session_id=SESSION, base=base, head=head, into=into)
    return into


async def restore(world: World, bundle: Path, base: str, head: str) -> None:
    await world.git.restore(world.repository, session_id=SESSION, bundle=bundle, base=base, head=head)


def lose(world: World) -> None:
    shutil.rmtree(world.mirror)


def packed(world: World) -> int:
    return sum(pack.stat().st_size for pack in (world.mirror / "objects/pack").iterdir())


def session_head(world: World) -> str:
    return git(world.mirror, "for-each-ref", "--format=%(objectname)", f"refs/treadle/sessions/{SESSION}")


async def test_what_is_stored_twice_replaces_nothing(world: World) -> None:
    """Two servers store one snapshot, of mirrors that pack it differently: whichever of them the database has stays as it was."""
    base = await world.fetch()
    head = await committed(world, base, "first.txt", b"many words\n" * 10_000)
    async with open_filesystem(Settings(data_dir=world.tmp / "store")) as objects:

        async def store() -> StoredObject:
            return await store_bundle(
                world.git, objects, world.repository, session_id=SESSION, name="a-turn", base=base, head=head, scratch=world.tmp
            )

        first, again = await store(), await store()
        git(world.mirror, "config", "core.compression", "0")
        git(world.mirror, "repack", "-adFq")
        other = await store()
        assert first == again
        assert len({first.sha256, other.sha256}) == 2
        for stored in (first, other):
            pieces = [piece async for piece in objects.get(stored.key, sha256=stored.sha256)]
            assert sum(map(len, pieces)) == stored.size
        # Deletion goes by this prefix.
        assert {key async for key in objects.list(f"tenant/{SESSION}/")} == {first.key, other.key}


async def test_a_mirror_that_was_lost_gets_what_only_it_had(world: World) -> None:
    base = await world.fetch()
    first = await committed(world, base, "first.txt")
    second = await committed(world, first, "second.txt")
    bundles = [await bundled(world, base, first), await bundled(world, first, second)]
    lose(world)
    assert await world.fetch(second) == base
    await restore(world, bundles[0], base, first)
    await restore(world, bundles[1], first, second)
    assert git(world.mirror, "fsck", "--full", "--strict", second) == ""
    assert session_head(world) == second
    assert await world.fetch(second) == second
    # Again, and an older one: nothing goes back.
    await restore(world, bundles[0], base, first)
    assert session_head(world) == second
    await world.push(second, create=True)
    assert world.pushed("show", f"{second}:first.txt") == "new"


async def test_one_may_stand_on_a_commit_beside_it(world: World) -> None:
    base = await world.fetch()
    workspace = await world.workspace(base)
    (workspace / "large.bin").write_bytes(random.Random(5).randbytes(1 << 20))
    first = (await world.import_(workspace, base)).commit
    with (workspace / "large.bin").open("ab") as large:
        large.write(b"a line\n")
    second = (await world.import_(workspace, base)).commit
    (workspace / "small.txt").write_text("small\n")
    third = (await world.import_(workspace, base)).commit
    assert first
    assert second
    assert third
    chain = list(pairwise([base, first, second, third]))
    bundles = [await bundled(world, *each) for each in chain]
    assert [bundle.stat().st_size < 4096 for bundle in bundles] == [False, True, True]
    lose(world)
    assert await world.fetch(third) == base
    taken = []
    for bundle, (before, made) in zip(bundles, chain, strict=True):
        had = packed(world)
        await restore(world, bundle, before, made)
        taken.append(packed(world) - had)
    assert taken[2] < 4096, f"what only the second changed comes once: {taken}"
    assert git(world.mirror, "fsck", "--full", "--strict", first, second, third) == ""
    assert git(world.mirror, "rev-parse", f"{third}^", f"{second}^", f"{first}^").split() == [base, base, base]


async def test_one_without_a_base_holds_all_that_is_needed(world: World) -> None:
    head = await committed(world, await world.fetch(), "first.txt")
    bundle = await bundled(world, "", head)
    lose(world)
    await restore(world, bundle, "", head)
    assert git(world.mirror, "fsck", "--full", "--strict", head) == ""


async def test_a_change_takes_up_no_more_than_itself(world: World, server: GitServer) -> None:
    server.commit("demo", {"large.txt": b"".join(b"%d line %d\n" % (number * 7919 % 104729, number) for number in range(200_000))})
    base = await world.fetch()
    workspace = await world.workspace(base)
    large = workspace / "large.txt"
    large.write_bytes(large.read_bytes().replace(b"\n", b" changed\n", 1))
    head = (await world.import_(workspace, base)).commit
    assert head
    assert (await bundled(world, base, head)).stat().st_size < 64 * 1024


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data.replace(b"# v2 git bundle", b"# v3 git bundle"),
        lambda data: data[:-30] + bytes([data[-30] ^ 1]) + data[-29:],
        lambda data: data.replace(b"refs/heads/snapshot", b"refs/heads/whatever"),
    ],
)  # fmt: skip
async def test_a_damaged_one_leaves_no_trace(world: World, damage: object) -> None:
    base = await world.fetch()
    head = await committed(world, base, "first.txt")
    bundle = await bundled(world, base, head)
    lose(world)
    await world.fetch()
    before = sorted(path.name for path in world.mirror.rglob("*"))
    bundle.write_bytes(damage(bundle.read_bytes()))  # type: ignore[operator]
    with pytest.raises(SnapshotDamaged):
        await restore(world, bundle, base, head)
    assert sorted(path.name for path in world.mirror.rglob("*")) == before


async def test_the_bundle_of_another_commit_is_refused(world: World) -> None:
    base = await world.fetch()
    first, second = [await committed(world, base, name) for name in ("first.txt", "second.txt")]
    bundle = await bundled(world, base, first)
    lose(world)
    await world.fetch()
    with pytest.raises(SnapshotDamaged):
        await restore(world, bundle, base, second)
    # A header that lies about what is in the pack.
    bundle.write_bytes(bundle.read_bytes().replace(first.encode(), second.encode(), 1))
    with pytest.raises(SnapshotDamaged):
        await restore(world, bundle, base, second)
    assert session_head(world) == ""


async def test_without_its_base_nothing_is_restored(world: World) -> None:
    base = await world.fetch()
    first = await committed(world, base, "first.txt")
    second = await committed(world, first, "second.txt")
    bundle = await bundled(world, first, second)
    lose(world)
    await world.fetch()
    with pytest.raises((WorkspaceFailed, SnapshotDamaged)):
        await restore(world, bundle, first, second)


async def test_what_git_does_not_like_of_the_remotes_own_files_stops_no_restore(world: World, server: GitServer) -> None:
    server.commit("demo", {".gitmodules": '[submodule "x"]\n\tpath = x\n\turl = --upload-pack=touch /tmp/x\n'})
    base = await world.fetch()
    head = await committed(world, base, "first.txt")
    bundle = await bundled(world, base, head)
    lose(world)
    await world.fetch()
    await restore(world, bundle, base, head)
    assert git(world.mirror, "show", f"{head}:first.txt") == "new"
