"""What is left of a slot is removed, whatever the agent has made of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.requirements import require

from server.workers.slot import delete_tree


def test_a_hostile_tree_is_deleted_and_nothing_else(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o755)
    (outside / "kept").write_text("kept")
    doomed = tmp_path / "doomed"
    doomed.mkdir()
    (doomed / "link").symlink_to(outside)
    (doomed / "dangling").symlink_to("/nowhere")
    os.mkfifo(doomed / "pipe")
    locked = doomed / "locked"
    locked.mkdir()
    (locked / "file").write_text("x")
    (locked / "up").symlink_to("..")
    locked.chmod(0)
    delete_tree(doomed)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside"]
    assert (outside / "kept").read_text() == "kept"
    assert outside.stat().st_mode & 0o777 == 0o755


def test_a_tree_deeper_than_any_path_is_deleted(tmp_path: Path) -> None:
    doomed = tmp_path / "doomed"
    doomed.mkdir()
    where = os.open(doomed, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=where)
        below = os.open("d", os.O_RDONLY, dir_fd=where)
        os.close(where)
        where = below
    os.close(where)
    delete_tree(doomed)
    assert not doomed.exists()


def test_root_changes_no_mode_by_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody lesser, whose directory it is, could put a link to anything there between two calls."""
    require(os.geteuid() == 0, "root", "run the tests as root")
    doomed = tmp_path / "doomed"
    (doomed / "closed" / "below").mkdir(parents=True)
    (doomed / "closed").chmod(0)

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("this follows links")

    monkeypatch.setattr(os, "chmod", refused)
    delete_tree(doomed)
    assert not doomed.exists()
