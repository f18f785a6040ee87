"""A tree changes its owner, and nothing else does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.requirements import require

from server.spawner.ownership import give
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
    give(tree, 1234, 1235)
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
    give(tree, 1234, 1235)
    assert os.fstat(where).st_uid == 1234
    os.close(where)
    delete_tree(tree)


def test_the_top_is_given_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its owner is told whether all was given: a spawner that is killed in between does it again."""
    tree = tmp_path / "tree"
    (tree / "a").mkdir(parents=True)
    (tree / "a" / "file").write_text("x")
    given: list[str] = []
    chown = os.chown

    def dying(name: str, *owner: int, **options: object) -> None:
        given.append(name)
        if name == "file":
            raise KeyboardInterrupt
        chown(name, *owner, **options)

    monkeypatch.setattr(os, "chown", dying)
    with pytest.raises(KeyboardInterrupt):
        give(tree, 1234, 1235)
    assert given == ["a", "file"]
    assert tree.stat().st_uid == 0
