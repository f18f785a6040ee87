"""The tree with which an import compares: what is said of it, and that git is not asked for a large one again and again."""

from __future__ import annotations

import errno
import os
import random
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from support.git_server import git
from support.git_world import World

from server.git import base_tree
from server.git.command import Git
from server.git.walker.protocol import Base, BaseTree, dump_base


def _listed(files: dict[bytes, Base]) -> bytes:
    """As `git ls-tree -r -z -l` says it."""
    return b"".join(
        b"%s %s %s %s\t%s\0"
        % (each.mode, b"commit" if each.mode == b"160000" else b"blob", each.id, b"      -" if each.size < 0 else b"%7d" % each.size, path)
        for path, each in files.items()
    )


def _files(rng: random.Random, count: int) -> dict[bytes, Base]:
    parts = [b"a", b"b", b"a.b", b"a-b", b"A", b"\xff", b".x", b"d" * 40]
    paths = [b"/".join(rng.choices(parts, k=rng.randint(1, 4))) + b"/%d" % number for number in range(count)]
    return {
        path: Base(b"100755" if rng.random() < 0.2 else b"100644", b"%040x" % rng.getrandbits(160), rng.randint(0, 9)) for path in paths
    }


def _leading(paths: object) -> set[bytes]:
    assert isinstance(paths, dict)
    return {b""} | {path[: at + 1] for path in paths for at in range(len(path)) if path[at : at + 1] == b"/"}


def test_it_holds_what_git_lists() -> None:
    files = {**_files(random.Random(1), 300), b"sub": Base(b"160000", b"5" * 40, -1)}
    tree = BaseTree(dump_base(_listed(files)))
    assert dict(tree.items()) == files
    assert len(tree) == len(files)
    assert tree.directories == _leading(files)
    assert tree.listing_bytes == len(_listed(files))
    assert all(path in tree for path in files)
    assert b"a" not in tree
    assert b"a/" not in tree
    assert tree.get(b"no/such") is None
    assert tree.may_have_submodules


def test_nothing_is_held_by_an_empty_tree() -> None:
    tree = BaseTree(dump_base(b""))
    assert (len(tree), list(tree), tree.directories, tree.names(b"")) == (0, [], {b""}, b"")
    assert not tree.may_have_submodules


def test_of_a_tree_with_two_files_of_one_path_the_last_counts() -> None:
    first, last = Base(b"100644", b"1" * 40, 1), Base(b"100644", b"2" * 40, 2)
    tree = BaseTree(dump_base(_listed({b"d/x": first, b"a": first}) + _listed({b"d/x": last})))
    assert dict(tree.items()) == {b"a": first, b"d/x": last}


def test_names_are_sorted_whatever_the_tree_says() -> None:
    one = Base(b"100644", b"1" * 40, 1)
    assert BaseTree(dump_base(_listed({b"d/z": one, b"d/a": one, b"d/\xff": one}))).names(b"d/") == b"a\0z\0\xff\0"


@pytest.mark.parametrize("seed", range(5))
def test_a_changed_one_holds_the_changes_and_the_first_stays(seed: int) -> None:
    rng = random.Random(seed)
    files = _files(rng, 60)
    tree = BaseTree(dump_base(_listed(files)))
    gone = rng.sample(sorted(files), 40)
    changes: dict[bytes, Base | None] = {**dict.fromkeys(gone), **_files(rng, 5), b"new/deep/x": Base(b"100644", b"9" * 40, 1)}
    wanted = {path: each for path, each in {**files, **changes}.items() if each is not None}
    changed = tree.changed(changes)
    assert dict(changed.items()) == wanted
    assert changed.directories == _leading(wanted)
    assert dict(tree.items()) == files


def test_names_that_git_may_mind_are_found_in_any_directory() -> None:
    one = Base(b"100644", b"1" * 40, 1)
    paths = [b".gitmodules", b"a/.gitattributes", b"a/b/GITMOD~1", b"a/plain", b"a/b/c.d"]
    assert BaseTree(dump_base(_listed(dict.fromkeys(paths, one)))).unusual() == paths[:3]


async def test_of_a_large_tree_git_is_asked_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_tree, "_LARGE_BYTES", 0)
    base = await world.fetch()
    workspace = await world.workspace(base)
    (workspace / "new.txt").write_text("new\n")

    async def never(*_: object) -> bytes:
        raise AssertionError("git was asked")

    with monkeypatch.context() as patched:
        patched.setattr(base_tree, "_made", never)
        found = await world.import_(workspace, base)
        assert git(world.mirror, "diff-tree", "-r", "--name-status", base, str(found.commit)).split() == ["A", "new.txt"]
        again = await world.workspace(base)  # another session's
    assert (await world.import_(again, base)).commit is None


async def test_of_a_small_tree_nothing_is_kept(world: World) -> None:
    base = await world.fetch()
    await world.workspace(base)
    assert not (world.mirror / "bases").exists()


def test_changes_of_one_large_directory_take_time_in_proportion() -> None:
    """Where each change would copy the directory, 40,000 take 17 s of a processor, and 16,000 fifteen times as long as 4,000."""

    def seconds(count: int) -> float:
        tree = BaseTree(dump_base(_listed({b"d/%d" % number: Base(b"100644", b"1" * 40, 1) for number in range(count)})))
        begun = time.process_time()
        assert len(tree.changed(dict.fromkeys(tree))) == 0
        return time.process_time() - begun

    assert seconds(16_000) < 10 * seconds(4_000)


@pytest.mark.parametrize("damage", [lambda dumped: dumped[:-1], lambda dumped: b"BASE0000" + dumped[8:], lambda dumped: dumped[:10]])
def test_one_that_is_not_whole_is_none(damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(ValueError, match="no whole base tree"):
        BaseTree(damage(dump_base(_listed({b"d/x": Base(b"100644", b"1" * 40, 1)}))))


def test_what_git_has_lost_has_no_size() -> None:
    assert BaseTree(dump_base(b"100644 blob %s     BAD\ta\0" % (b"1" * 40)))[b"a"].size == -1


async def test_a_disk_that_is_full_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without a buffer takes what there is room for, and says how much that was."""
    monkeypatch.setattr(base_tree, "_kept", lambda *_: b"x" * 100_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with (tmp_path / "request").open("w+b", buffering=0) as request:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        try:
            with pytest.raises(OSError, match="too large"):
                await base_tree.write_base(cast(Git, None), tmp_path, "0" * 40, request)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _cut(kept: Path) -> None:
    content = kept.read_bytes()
    kept.write_bytes(content[: content.index(b"src/") - 12])


def _directory(kept: Path) -> None:
    kept.unlink()
    kept.mkdir()


@pytest.mark.parametrize("damage", [_cut, _directory])
async def test_one_that_cannot_be_read_is_listed_anew(
    world: World, monkeypatch: pytest.MonkeyPatch, damage: Callable[[Path], None]
) -> None:
    monkeypatch.setattr(base_tree, "_LARGE_BYTES", 0)
    base = await world.fetch()
    workspace = await world.workspace(base)
    (workspace / "src/app.py").unlink()
    (kept,) = (world.mirror / "bases").iterdir()
    damage(kept)
    found = await world.import_(workspace, base)
    assert git(world.mirror, "diff-tree", "-r", "--name-status", base, str(found.commit)).split() == ["D", "src/app.py"]


async def test_one_that_cannot_be_kept_stops_no_workspace(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(base_tree, "_LARGE_BYTES", 0)
    base = await world.fetch()
    with monkeypatch.context() as patched:
        patched.setattr(base_tree.os, "fsync", full)
        workspace = await world.workspace(base)
    assert [*(world.mirror / "bases").iterdir()] == []
    assert (await world.import_(workspace, base)).commit is None


def test_those_that_were_used_last_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = dump_base(_listed({b"a": Base(b"100644", b"1" * 40, 1)}))
    monkeypatch.setattr(base_tree, "_KEPT_BYTES", 16 * len(content))
    folder = tmp_path / "bases"
    for number in range(20):
        base_tree._keep(folder, f"{number:040}", content)
        os.utime(folder / f"{number:040}", (number, number))
        if number >= 10:
            assert base_tree._kept(tmp_path, f"{0:040}") == content
    assert len([*folder.iterdir()]) == 16
    assert base_tree._kept(tmp_path, f"{0:040}") == content
    assert base_tree._kept(tmp_path, f"{19:040}") == content
    assert base_tree._kept(tmp_path, f"{1:040}") is None
