"""A tree changes its owner, and nothing else does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.containers import spawner_settings
from support.requirements import require

from server.sandbox import listing
from server.sandbox.listing import beside
from server.spawner import ownership
from server.spawner.ownership import give
from server.spawner.slots import Slots
from server.workers.slot import delete_tree


@pytest.fixture(autouse=True)
def _root() -> None:
    require(os.geteuid() == 0, "root", "run the tests as root")


def test_a_hostile_tree_is_given_and_what_it_links_to_is_not(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "link").symlink_to(outside)
    (tree / "a" / "up").symlink_to("..")
    os.mkfifo(tree / "a" / "pipe")
    (tree / "a" / "file").write_text("x")
    (tree / "locked").mkdir(mode=0)
    give(tree, 0, (1234, 1235))
    seen = [tree, *tree.rglob("*")]
    assert len(seen) == 8
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in seen} == {(1234, 1235)}
    assert {path.lstat().st_uid for path in (outside, outside / "kept", tmp_path)} == {0}


def test_a_tree_deeper_than_any_path_is_given(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    where = os.open(tree, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=where)
        below = os.open("d", os.O_RDONLY, dir_fd=where)
        os.close(where)
        where = below
    give(tree, 0, (1234, 1235))
    assert os.fstat(where).st_uid == 1234
    os.close(where)
    delete_tree(tree)


def test_the_top_is_given_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its owner is told whether all was given: a spawner that is killed in between does it again."""
    tree = tmp_path / "tree"
    (tree / "a").mkdir(parents=True)
    (tree / "a" / "file").write_text("x")
    give_one, given = ownership._give, []

    def dying(found: int, source: int, target: tuple[int, int]) -> bool:
        given.append(Path(f"/proc/self/fd/{found}").readlink().name)
        if given[-1] == "file":
            raise KeyboardInterrupt
        return give_one(found, source, target)

    monkeypatch.setattr(ownership, "_give", dying)
    with pytest.raises(KeyboardInterrupt):
        give(tree, 0, (1234, 1235))
    assert given == ["a", "file"]
    assert tree.stat().st_uid == 0


def test_only_what_was_the_givers_is_given(tmp_path: Path) -> None:
    """Who owned the tree may have put a second name of somebody else's file there, where the kernel lets him."""
    tree, secret = tmp_path / "tree", tmp_path / "secret"
    (tree / "theirs").mkdir(parents=True)
    (tree / "own").write_text("x")
    secret.write_text("root's")
    (tree / "theirs" / "inside").write_text("x")
    (tree / "hard").hardlink_to(secret)
    for path in (tree, tree / "own"):
        os.chown(path, 1000, 1000)
    give(tree, 1000, (1234, 1235))
    owners = {path.name: path.stat().st_uid for path in (tree, *tree.rglob("*"))}
    assert owners == {"tree": 1234, "own": 1234, "hard": 0, "theirs": 0, "inside": 0}


def test_a_directory_that_is_moved_meanwhile_leads_to_nothing_that_is_not_the_givers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its `..` is another directory then."""
    tree, elsewhere = tmp_path / "tree", tmp_path / "elsewhere"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "file").write_text("x")
    for path in (tree, *tree.rglob("*")):
        os.chown(path, 1000, 1000)
    elsewhere.mkdir()
    for name in ("file", "a"):
        (elsewhere / name).mkdir()
        (elsewhere / name / "secret").write_text("root's")
    go = ownership._gone_to

    def moved(here: int, name: str) -> int:
        if (tree / "a" / "b").exists():
            (tree / "a" / "b").rename(elsewhere / "b")
        return go(here, name)

    monkeypatch.setattr(ownership, "_gone_to", moved)
    give(tree, 1000, (1234, 1235))
    assert {path.stat().st_uid for path in (elsewhere, *elsewhere.rglob("*")) if path.name != "b"} == {0}
    assert tree.stat().st_uid == 1234


def test_what_the_worker_has_not_touched_is_known_over_both_changes_of_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what it has touched is not, nor anything of a slot that a worker had before."""
    monkeypatch.setattr(listing, "_RACY_NS", -(10**9))  # all of this takes less than a tick of the clock
    slots = Slots(spawner_settings(tmp_path, server_user="10000", worker_root=tmp_path / "workers"))
    slots.root.mkdir(parents=True)
    slot = slots.make("one")
    for name in ("kept", "written", "folder/kept", "folder/chosen", "gone/file", "still/kept"):
        path = slot.workspace / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("as it was")
        for each in (path, path.parent):
            os.chown(each, 10000, 10000)
    user = slot.user()
    assert user is not None
    slots.give(slot, user)
    if not beside(slot.workspace).read_bytes():
        pytest.skip("no list on this file system")
    given = listing.read(beside(slot.workspace).read_bytes())
    assert {prefix: set(listing.each(files[:2])) for prefix, files in given.items()} == {
        b"": {b"kept", b"written"}, b"folder/": {b"kept", b"chosen"}, b"gone/": {b"file"}, b"still/": {b"kept"}
    }  # fmt: skip
    slots.give(slot, user)  # it has it: nothing is looked at again
    (slot.workspace / "written").write_text("as it is!")
    (slot.workspace / "folder/new").write_text("as it was")
    (slot.workspace / "folder/new").rename(slot.workspace / "folder/chosen")
    (slot.workspace / "gone").rename(slot.workspace / "here")
    os.chown(slot.workspace / "written", *user)
    for _ in range(2):
        slots.take_back(slot)
        assert {path.lstat().st_uid for path in slot.workspace.rglob("*") if path.name != "chosen"} == {10000}
        left = listing.read(beside(slot.workspace).read_bytes())
        assert {prefix: set(listing.each(files[:2])) for prefix, files in left.items()} == {
            b"": {b"kept"}, b"folder/": {b"kept"}, b"still/": {b"kept"}
        }  # fmt: skip
        now = listing.read(listing.take(str(slot.workspace)))
        assert all(listing.each(files[:2]).items() <= listing.each(now[prefix][:2]).items() for prefix, files in left.items())
        assert left[b"still/"] == now[b"still/"]
        assert {prefix: bool(directory[3]) for prefix, directory in left.items()} == {b"": False, b"folder/": False, b"still/": True}
    slots.renew(slot)
    assert not beside(slot.workspace).exists()
